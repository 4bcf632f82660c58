//! Connections over a pipe in memory, with frames written as they may arrive: in any pieces.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

const MAX_MESSAGE: usize = 100_000;

fn pair(capacity: usize) -> (Connection, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(capacity);
    let connection = Connection::new(Box::new(ours), BytesMut::new(), MAX_MESSAGE);
    (connection, theirs)
}

/// What a connection holds for itself.
fn held(connection: &Connection) -> usize {
    let fragments = connection.fragments.as_ref().map_or(0, BytesMut::capacity);
    connection.unread.capacity() + connection.unwritten.capacity() + fragments
}

fn encoded(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.format(&mut bytes).unwrap();
    bytes
}

fn data(payload: &[u8], kind: Data, is_final: bool) -> Frame {
    Frame::message(payload.to_vec(), OpCode::Data(kind), is_final)
}

/// A message as frames, cut at these places, with a ping before each.
fn fragmented(message: &[u8], cuts: &[prop::sample::Index]) -> Vec<u8> {
    let mut places: Vec<_> = cuts
        .iter()
        .map(|cut| cut.index(message.len() + 1))
        .collect();
    places.extend([0, message.len()]);
    places.sort_unstable();
    let last = places.len() - 2;
    let mut bytes = Vec::new();
    for (index, piece) in places.windows(2).enumerate() {
        let kind = if index == 0 {
            Data::Binary
        } else {
            Data::Continue
        };
        bytes.extend(encoded(Frame::ping(b"p".to_vec())));
        bytes.extend(encoded(data(
            &message[piece[0]..piece[1]],
            kind,
            index == last,
        )));
    }
    bytes
}

/// The frames of a client, unmasked.
async fn frames(theirs: &mut DuplexStream, count: usize) -> Vec<(OpCode, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut read = BytesMut::new();
    while frames.len() < count {
        let mut cursor = Cursor::new(&read[..]);
        let head = FrameHeader::parse(&mut cursor).unwrap();
        let start = usize::try_from(cursor.position()).unwrap();
        match head {
            Some((header, length)) if read.len() >= start + usize::try_from(length).unwrap() => {
                let mask = header.mask.expect("a client masks what it sends");
                let mut payload = read.split_to(start + usize::try_from(length).unwrap());
                payload.advance(start);
                let unmasked = payload.iter().zip(mask.iter().cycle());
                frames.push((
                    header.opcode,
                    unmasked.map(|(byte, mask)| byte ^ mask).collect(),
                ));
            }
            Some(_) | None => assert!(theirs.read_buf(&mut read).await.unwrap() > 0),
        }
    }
    frames
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_come_whole_and_in_order_however_they_arrive(
        messages in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..2000), prop::collection::vec(any::<prop::sample::Index>(), 0..3)),
            1..6,
        ),
        piece in 1..5000_usize,
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(|(message, cuts)| fragmented(message, cuts)).collect();
        let pings = messages.iter().map(|(_, cuts)| cuts.len() + 1).sum::<usize>();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut connection, theirs) = pair(piece);
            let (mut reading, mut writing) = tokio::io::split(theirs);
            let server = async move {
                writing.write_all(&bytes).await.unwrap();
                writing
            };
            let answers = async move {
                // Each ping is answered by a pong of six bytes, its mask, and one of payload.
                let mut pongs = vec![0; pings * 7];
                reading.read_exact(&mut pongs).await.unwrap();
                pongs
            };
            let client = async {
                let mut received = Vec::new();
                for _ in &messages {
                    received.push(connection.receive().await.unwrap());
                }
                // The pongs to the last pings go out with whatever comes next.
                connection.send([]).await.unwrap();
                received
            };
            let (writing, pongs, received) = tokio::join!(server, answers, client);
            drop(writing);
            let sent: Vec<_> = messages.iter().map(|(message, _)| message.clone()).collect();
            assert_eq!(received, sent);
            assert!(pongs.chunks(7).all(|pong| pong[0] == 0x8a && pong[1] == 0x81));
            assert_eq!(held(&connection), 0, "an idle connection holds no buffer");
        });
    }
}

#[tokio::test]
async fn after_a_long_message_nothing_of_its_buffer_is_kept() {
    let (mut connection, mut theirs) = pair(1 << 20);
    let long = vec![b'x'; MAX_MESSAGE];
    theirs
        .write_all(&encoded(data(&long, Data::Binary, true)))
        .await
        .unwrap();
    assert_eq!(connection.receive().await.unwrap(), long);
    assert_eq!(held(&connection), 0);

    connection
        .send([long.clone(), b"short".to_vec()])
        .await
        .unwrap();
    let sent = frames(&mut theirs, 2).await;
    assert_eq!(sent[0].1, long);
    assert_eq!(sent[1].1, b"short");
    assert_eq!(held(&connection), 0);
}

#[tokio::test]
async fn what_may_not_come_ends_the_connection_with_the_reason() {
    let long_ping = [&[0x89, 126, 0, 126][..], &[0; 126]].concat();
    let go_on = encoded(data(b"x", Data::Continue, true));
    let begin = encoded(data(b"x", Data::Binary, false));
    for (bytes, reason) in [
        (vec![0xc2, 1, b'x'], "an extension"),
        (vec![0x82, 0x81, 0, 0, 0, 0, b'x'], "masks"),
        (vec![0x83, 1, b'x'], "opcode"),
        (vec![0x8b, 1, b'x'], "opcode"),
        (long_ping, "control frame"),
        (vec![0x09, 1, b'x'], "control frame"),
        (go_on, "has not begun"),
        ([begin.clone(), begin].concat(), "within another"),
        (vec![0x88, 2, 3, 0xe9], "closed by the upstream: 1001"),
        (vec![0x88, 0], "closed by the upstream"),
    ] {
        let (mut connection, mut theirs) = pair(1 << 16);
        theirs.write_all(&bytes).await.unwrap();
        let ended = connection.receive().await.unwrap_err();
        assert!(
            ended.reason.to_lowercase().contains(reason),
            "{bytes:x?}: {ended:?}"
        );
        assert!(!ended.too_large);
        // It stays ended, whatever else comes.
        theirs
            .write_all(&encoded(data(b"more", Data::Binary, true)))
            .await
            .unwrap();
        assert_eq!(connection.receive().await, Err(ended));
    }
}

#[tokio::test]
async fn a_goodbye_is_answered() {
    let (mut connection, mut theirs) = pair(1 << 16);
    theirs.write_all(&[0x88, 2, 3, 0xe9]).await.unwrap();
    connection.receive().await.unwrap_err();
    let answer = frames(&mut theirs, 1).await;
    assert_eq!(answer[0].0, OpCode::Control(Control::Close));
}

#[tokio::test]
async fn a_flood_of_pings_that_is_not_read_back_takes_no_memory() {
    let (mut connection, mut theirs) = pair(1 << 10);
    let pings = encoded(Frame::ping(vec![b'p'; 100])).repeat(20_000);
    let server = async {
        theirs.write_all(&pings).await.unwrap();
        theirs
            .write_all(&encoded(data(b"done", Data::Binary, true)))
            .await
            .unwrap();
    };
    let (_, received) = tokio::join!(server, connection.receive());
    assert_eq!(received.unwrap(), "done");
    assert!(connection.unwritten.len() <= MAX_UNWRITTEN + 200);
}

#[tokio::test]
async fn a_send_that_is_cancelled_is_finished_by_the_next() {
    use futures_util::FutureExt as _;

    let (mut connection, mut theirs) = pair(100);
    let first = vec![b'1'; 1000];
    assert!(connection.send([first.clone()]).now_or_never().is_none());
    let second = b"2".to_vec();
    let (sent, read) = tokio::join!(connection.send([second]), frames(&mut theirs, 2));
    sent.unwrap();
    assert_eq!(read[0].1, first);
    assert_eq!(read[1].1, b"2");
}
