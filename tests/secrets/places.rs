//! Where a secret could be seen.

use std::path::Path;

use redis::{Connection, FromRedisValue, Value};

/// Something that can be read.
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Place {
    pub(crate) fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into(),
        }
    }
}

/// All files of a folder.
pub(crate) fn files(folder: &Path) -> Vec<Place> {
    let mut places = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            places.extend(files(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            if !bytes.is_empty() {
                places.push(Place::new(path.display().to_string(), bytes));
            }
        }
    }
    places
}

/// Every key and value of a Redis server, one after the other, and the files that it writes of them.
pub(crate) fn redis(connection: &mut Connection) -> Vec<Place> {
    let mut dump = Vec::new();
    let keys: Vec<Vec<u8>> = ask(connection, redis::cmd("KEYS").arg("*"));
    assert!(!keys.is_empty());
    for key in keys {
        dump.extend(&key);
        dump.push(b'\n');
        let kind: String = ask(connection, redis::cmd("TYPE").arg(&key));
        let value: Value = match kind.as_str() {
            "string" => ask(connection, redis::cmd("GET").arg(&key)),
            "hash" => ask(connection, redis::cmd("HGETALL").arg(&key)),
            "stream" => ask(connection, redis::cmd("XRANGE").arg(&key).arg("-").arg("+")),
            "zset" => ask(
                connection,
                redis::cmd("ZRANGE")
                    .arg(&key)
                    .arg(0)
                    .arg(-1)
                    .arg("WITHSCORES"),
            ),
            "list" => ask(connection, redis::cmd("LRANGE").arg(&key).arg(0).arg(-1)),
            "set" => ask(connection, redis::cmd("SMEMBERS").arg(&key)),
            other => panic!("a {other} that is not looked into"),
        };
        flatten(&value, &mut dump);
    }
    let _: () = ask(connection, &redis::cmd("SAVE"));
    let folder: Vec<String> = ask(connection, redis::cmd("CONFIG").arg("GET").arg("dir"));
    let mut places = files(Path::new(&folder[1]));
    for file in ["dump.rdb", ".aof"] {
        assert!(
            places.iter().any(|place| place.name.ends_with(file)),
            "{file}"
        );
    }
    places.push(Place::new("the keys and values of Redis", dump));
    places
}

fn ask<T: FromRedisValue>(connection: &mut Connection, command: &redis::Cmd) -> T {
    command.query(connection).unwrap()
}

fn flatten(value: &Value, into: &mut Vec<u8>) {
    if let Value::Array(values) | Value::Set(values) = value {
        values.iter().for_each(|value| flatten(value, into));
    } else if let Value::Map(entries) = value {
        for (key, value) in entries {
            flatten(key, into);
            flatten(value, into);
        }
    } else if let Value::BulkString(bytes) = value {
        into.extend(bytes);
    } else {
        into.extend(format!("{value:?}").bytes());
    }
    into.push(b'\n');
}
