//! A child process of a test: its output is kept and can be waited on, and it dies with its owner.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What a child has written so far.
#[derive(Default)]
struct Output {
    lines: Vec<(Stream, String)>,
    /// How many of its two streams have ended.
    ended: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

type Shared = Arc<(Mutex<Output>, Condvar)>;

/// A running child.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: Shared,
}

/// A child that has ended by itself.
pub(crate) struct Finished {
    /// Whether its exit code was 0.
    pub(crate) success: bool,
    /// The last line of its standard output.
    pub(crate) answer: String,
    /// All that it wrote, for a failure's message.
    pub(crate) transcript: String,
}

impl Process {
    /// Starts the command. `name` is for messages.
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        let output = Shared::default();
        keep(child.stdout.take().unwrap(), Stream::Out, &output);
        keep(child.stderr.take().unwrap(), Stream::Err, &output);
        Self {
            name: name.to_owned(),
            child,
            output,
        }
    }

    /// Waits for a word on its standard output that begins with `beginning`, such as `ws://`, and returns it.
    pub(crate) fn printed(&self, beginning: &str, within: Duration) -> String {
        self.until(&format!("word {beginning}..."), within, |output| {
            let mut printed = output.lines.iter().filter(|line| line.0 == Stream::Out);
            printed.find_map(|(_, line)| {
                let (_, rest) = line.split_once(beginning)?;
                let end = |c: char| c.is_whitespace() || "\"',;)".contains(c);
                let rest = rest.split(end).next()?.trim_end_matches('/');
                Some(format!("{beginning}{rest}"))
            })
        })
    }

    /// Waits until it has ended by itself.
    pub(crate) fn finish(mut self, within: Duration) -> Finished {
        self.until("its end", within, |output| {
            (output.ended == 2).then_some(())
        });
        let success = self.child.wait().unwrap().success();
        let output = self.output.0.lock().unwrap();
        let answer = output.lines.iter().rev().find(|line| line.0 == Stream::Out);
        Finished {
            success,
            answer: answer.map_or_else(String::new, |line| line.1.clone()),
            transcript: transcript(&output),
        }
    }

    /// Waits until `pick` finds something in the output.
    fn until<T>(&self, what: &str, within: Duration, pick: impl Fn(&Output) -> Option<T>) -> T {
        let (output, grown) = &*self.output;
        let waiting = |output: &mut Output| pick(output).is_none() && output.ended < 2;
        let output = output.lock().unwrap();
        let (output, _) = grown.wait_timeout_while(output, within, waiting).unwrap();
        let found = pick(&output);
        found.unwrap_or_else(|| {
            let name = &self.name;
            let said = transcript(&output);
            panic!("{name}: no {what} within {within:?}; it wrote:\n{said}")
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a stream to its end in a thread of its own, so that the child never waits for a reader.
fn keep(stream: impl Read + Send + 'static, which: Stream, output: &Shared) {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        let (lines, grown) = &*output;
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).into_owned();
            lines.lock().unwrap().lines.push((which, line));
            grown.notify_all();
        }
        lines.lock().unwrap().ended += 1;
        grown.notify_all();
    });
}

fn transcript(output: &Output) -> String {
    let lines = output.lines.iter().map(|line| line.1.as_str());
    lines.collect::<Vec<_>>().join("\n")
}
