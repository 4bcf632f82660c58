//! Processes of the bench: started on their core, what they print, their CPU and memory, and their end.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use procfs::process::Process as Proc;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::bench::{Bench, Core};

/// How long a process may take to start, to stop, and for what it is asked to do if nothing else is said.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How much of its errors is shown when the bench fails.
const SHOWN: i64 = 4000;

/// A running process. Dropped, it is killed; when that is because the bench fails, the end of its errors is shown.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    errors: PathBuf,
}

impl Process {
    /// Starts the product, `imgate`.
    pub(crate) fn imgate(bench: &Bench, core: Core, arguments: &[&str]) -> Self {
        let program = env!("CARGO_BIN_EXE_imgate");
        Self::start(bench, core, arguments[0], program, arguments)
    }

    /// Starts a part of this bench; see [`crate::part`].
    pub(crate) fn part(bench: &Bench, core: Core, arguments: &[&str]) -> Self {
        let program = std::env::current_exe().unwrap();
        let all = [&["part"], arguments].concat();
        Self::start(bench, core, arguments[0], program.to_str().unwrap(), &all)
    }

    /// Starts any program.
    pub(crate) fn start(
        bench: &Bench,
        core: Core,
        name: &str,
        program: &str,
        arguments: &[&str],
    ) -> Self {
        let mut command = match bench.pinned(core) {
            // It becomes the program, and so has its process number.
            Some(cores) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &cores, program]);
                command
            }
            None => Command::new(program),
        };
        let errors = bench.file(&format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&errors);
        let mut child = command
            .args(arguments)
            .current_dir(bench.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (line, lines) = sync_channel(1024);
        std::thread::spawn(move || {
            for text in stdout.lines().map_while(Result::ok) {
                // Nobody listens any more when the process is about to be killed.
                if line.send(text).is_err() {
                    break;
                }
            }
        });
        Self {
            name: name.to_owned(),
            stdin: child.stdin.take().unwrap(),
            child,
            lines,
            errors,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self, within: Duration) -> String {
        match self.lines.recv_timeout(within) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("{} prints nothing in {within:?}", self.name),
            Err(RecvTimeoutError::Disconnected) => panic!("{} has ended", self.name),
        }
    }

    /// What follows the prefix on the next line.
    pub(crate) fn after(&mut self, prefix: &str) -> String {
        let line = self.line(PATIENCE);
        let rest = line.strip_prefix(prefix).map(str::to_owned);
        rest.unwrap_or_else(|| panic!("{}: {prefix:?} expected, not {line:?}", self.name))
    }

    /// The next line, which is JSON.
    pub(crate) fn report<T: DeserializeOwned>(&mut self, within: Duration) -> T {
        let line = self.line(within);
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{}: {line}: {error}", self.name))
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    /// Its CPU time so far, user and system, of all its threads.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = self.proc().stat().unwrap();
        let ticks = stat.utime + stat.stime;
        Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64)
    }

    /// Its resident memory.
    pub(crate) fn resident_kib(&self) -> f64 {
        let rollup = self.proc().smaps_rollup().unwrap();
        let maps = rollup.memory_map_rollup.into_iter();
        let bytes: u64 = maps
            .filter_map(|map| map.extension.map.get("Rss").copied())
            .sum();
        bytes as f64 / 1024.0
    }

    /// Asks it to stop by SIGTERM, and waits until it has.
    pub(crate) fn stop(&mut self) {
        let id = self.id().to_string();
        let asked = Command::new("sh")
            .args(["-c", "kill -TERM \"$0\"", &id])
            .status();
        assert!(asked.unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{} does not stop", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn proc(&self) -> Proc {
        Proc::new(self.id().cast_signed()).unwrap()
    }

    fn last_errors(&self) -> String {
        let mut text = Vec::new();
        let mut file = File::open(&self.errors).unwrap();
        // A shorter file is read from its beginning.
        let _whole = file.seek(SeekFrom::End(-SHOWN));
        file.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; both calls then do nothing.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "-- the last errors of {}:\n{}",
                self.name,
                self.last_errors()
            );
        }
    }
}
