"""A whole bot in one file: logs an account in through imgate and sends every text back where it came from.

python echo_bot.py --gateway 127.0.0.1:50051 --account bot1
"""

import argparse
import hashlib
import pathlib
import random
import sys
import time

import grpc

# grpcio-tools compiles the protos as they are imported; the README tells how to write the stubs to files instead.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "proto"))
session_pb2, session_grpc = grpc.protos_and_services("imgate/v1/session.proto")
event_pb2, event_grpc = grpc.protos_and_services("imgate/v1/event.proto")
message_pb2, message_grpc = grpc.protos_and_services("imgate/v1/message.proto")

# With these the same call may work later.
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED}


class Bot:
    def __init__(self, account, signature, channel, api_key):
        self.account = account
        self.signature = signature
        self.metadata = [("authorization", f"Bearer {api_key}")] if api_key else []
        self.sessions = session_grpc.SessionServiceStub(channel)
        self.events = event_grpc.EventServiceStub(channel)
        self.messages = message_grpc.MessageServiceStub(channel)
        # Everything before this place has been answered. It dies with this process: keep yours in your database, in
        # the transaction that stores what you did about the events.
        self.cursor = None

    def run(self):
        """Logs in and answers events until the gateway goes away."""
        # Subscribe before Login, so that nothing is missed that comes right after it.
        start = {"cursor": self.cursor} if self.cursor else {"at": event_pb2.START_AT_LATEST}
        subscribe = event_pb2.SubscribeRequest(accounts=[self.account], **start)
        batches = self.events.Subscribe(subscribe, metadata=self.metadata)
        batches.initial_metadata()  # comes when the subscription stands

        # Costs nothing when the gateway has kept the account logged in.
        request = session_pb2.LoginRequest(account=self.account, signature=self.signature)
        login = self.sessions.Login(request, metadata=self.metadata)
        if login.code:
            sys.exit(f"refused: {login.code} {login.desc}")
        print("logged in as", self.account, flush=True)

        for batch in batches:
            for event in batch.events:
                if event.WhichOneof("kind") == "message":
                    self.echo(event.message)
                elif event.WhichOneof("kind") == "signature_expired":
                    print("the signature has ended: call RenewSignature with a fresh one", flush=True)
                else:
                    print(event, flush=True)
            # Only now: what was not dealt with comes again.
            self.cursor = batch.cursor

    def echo(self, message):
        """Sends the texts of a message back."""
        sender = getattr(message, "from")  # a keyword of Python
        texts = [element for element in message.elements if element.HasField("text")]
        if message.own or sender == self.account or not texts:
            return
        to_group = message.WhichOneof("conversation") == "group"
        request = message_pb2.SendRequest(
            account=self.account,
            elements=texts,
            # The same message gives the same ID: an event that comes twice is answered once.
            client_message_id="echo-" + hashlib.sha256(message.id.encode()).hexdigest()[:32],
            **({"group": message.group} if to_group else {"to": sender}),
        )
        try:
            sent = self.messages.Send(request, metadata=self.metadata)
        except grpc.RpcError as error:
            if error.code() in PASSING:
                raise
            print("not echoed:", error.details(), flush=True)
        else:
            print(f"not echoed: {sent.code} {sent.desc}" if sent.code else f"echoed {message.id}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", default="127.0.0.1:50051", help="where imgate listens, HOST:PORT")
    parser.add_argument("--account", required=True, help="the account to be")
    parser.add_argument("--api-key", help="the tenant's API key, if the gateway asks for one")
    parser.add_argument("--signature", default="", help="a login signature, if the gateway cannot make one itself")
    args = parser.parse_args()

    # One channel for all calls; it reconnects by itself.
    options = [("grpc.keepalive_time_ms", 20_000), ("grpc.max_reconnect_backoff_ms", 5_000)]
    with grpc.insecure_channel(args.gateway, options) as channel:
        bot = Bot(args.account, args.signature, channel, args.api_key)
        failures = 0
        while True:
            before = bot.cursor
            try:
                bot.run()
                print("the gateway ended the stream", flush=True)
            except grpc.RpcError as error:
                if error.code() not in PASSING:
                    sys.exit(f"{error.code().name}: {error.details()}")
                print("away:", error.details(), flush=True)
            failures = failures + 1 if bot.cursor == before else 0
            # Jitter keeps a thousand bots from coming back at the same moment.
            time.sleep(random.uniform(0.1, 0.5) * 2 ** min(failures, 5))


if __name__ == "__main__":
    main()
