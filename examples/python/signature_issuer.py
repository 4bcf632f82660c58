"""A tenant's own issuer: imgate calls it when an account needs a signature, so that no bot has to bring one.

python signature_issuer.py --listen 127.0.0.1:50061 --sdk-app-id 1400000001 --secret-key-file app.key
"""

import argparse
import base64
import hashlib
import hmac
import json
import pathlib
import sys
import time
import zlib
from concurrent import futures

import grpc

# grpcio-tools compiles the protos as they are imported; the README tells how to write the stubs to files instead.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "proto"))
issuer_pb2, issuer_grpc = grpc.protos_and_services("imgate/v1/signature_issuer.proto")


def mint(sdk_app_id, secret_key, account, lifetime):
    """Makes a UserSig (TLSSigAPIv2): the fields, their HMAC, packed, in the vendor's variant of base64."""
    now = int(time.time())
    signed = f"TLS.identifier:{account}\nTLS.sdkappid:{sdk_app_id}\nTLS.time:{now}\nTLS.expire:{lifetime}\n"
    mac = hmac.new(secret_key.encode(), signed.encode(), hashlib.sha256).digest()
    fields = {
        "TLS.ver": "2.0",
        "TLS.identifier": account,
        "TLS.sdkappid": sdk_app_id,
        "TLS.time": now,
        "TLS.expire": lifetime,
        "TLS.sig": base64.b64encode(mac).decode(),
    }
    packed = base64.b64encode(zlib.compress(json.dumps(fields).encode())).decode()
    # "+", "/" and "=" mean something in a URL.
    return packed.replace("+", "*").replace("/", "-").replace("=", "_")


class Issuer(issuer_grpc.SignatureIssuerServiceServicer):
    def __init__(self, args, secret_key, token):
        self.args = args
        self.secret_key = secret_key
        self.token = token

    def IssueSignature(self, request, context):
        given = dict(context.invocation_metadata()).get("authorization", "")
        if self.token and not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "show the token that this issuer knows")
        # Here is your say: who may have a signature? NOT_FOUND and PERMISSION_DENIED are final. With UNAVAILABLE and
        # a google.rpc.RetryInfo imgate asks again later.
        if request.sdk_app_id != self.args.sdk_app_id or not request.account.startswith(self.args.accounts):
            context.abort(grpc.StatusCode.NOT_FOUND, "no account of ours")
        why = issuer_pb2.IssueReason.Name(request.reason)
        print("signed for", request.account, why, "attempt", request.attempt, flush=True)
        signature = mint(request.sdk_app_id, self.secret_key, request.account, self.args.lifetime)
        return issuer_pb2.IssueSignatureResponse(signature=signature)


def read(path, mode="r"):
    with open(path, mode) as file:
        return file.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", default="127.0.0.1:50061", help="where to listen, HOST:PORT")
    parser.add_argument("--sdk-app-id", type=int, required=True, help="the upstream app")
    parser.add_argument("--secret-key-file", required=True, help="the file that holds the app's secret key")
    parser.add_argument("--lifetime", type=int, default=7 * 24 * 3600, help="how long a signature is good, in seconds")
    parser.add_argument("--accounts", default="", metavar="PREFIX", help="sign only for accounts that begin so")
    parser.add_argument("--token-file", help="the file that holds the bearer token that callers must show")
    parser.add_argument("--cert-file", help="the certificate chain, PEM; without it there is no TLS")
    parser.add_argument("--key-file", help="the certificate's private key, PEM")
    parser.add_argument("--client-ca-file", help="the authority that callers' certificates must come from, PEM")
    args = parser.parse_args()

    token = read(args.token_file).strip() if args.token_file else None
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    issuer = Issuer(args, read(args.secret_key_file).strip(), token)
    issuer_grpc.add_SignatureIssuerServiceServicer_to_server(issuer, server)
    if args.cert_file:
        client_ca = read(args.client_ca_file, "rb") if args.client_ca_file else None
        pairs = [(read(args.key_file, "rb"), read(args.cert_file, "rb"))]
        credentials = grpc.ssl_server_credentials(pairs, client_ca, require_client_auth=client_ca is not None)
        port = server.add_secure_port(args.listen, credentials)
    else:
        port = server.add_insecure_port(args.listen)
    server.start()
    print(f"listening on {args.listen.rsplit(':', 1)[0]}:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
