//! Where Redis is, as an operator writes it: one server, or the sentinels that know its present master.

use redis::{ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};

const SENTINEL_SCHEME: &str = "redis-sentinel://";
const SENTINEL_PORT: u16 = 26379;

/// A URL of either form, taken apart. Its `Debug` shows no password.
#[derive(Clone, Debug)]
pub enum RedisUrl {
    /// `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, or `redis+unix:///PATH`.
    Server(ConnectionInfo),
    /// `redis-sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/MASTER[/DATABASE]`.
    Sentinels(Sentinels),
}

/// Sentinels, and what to ask them for.
#[derive(Clone, Debug)]
pub struct Sentinels {
    /// The sentinels, at least one, without credentials. The default port is 26379.
    pub sentinels: Vec<ConnectionInfo>,
    /// The name under which they watch the master.
    pub master: String,
    /// The master's database, and the credentials for it and for sentinels that ask for some.
    pub settings: RedisConnectionInfo,
}

impl RedisUrl {
    /// Takes a URL apart. The error is the remedy; it quotes nothing, for the URL may hold a password.
    ///
    /// # Errors
    /// When the URL is of neither form.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        match url.strip_prefix(SENTINEL_SCHEME) {
            Some(rest) => Sentinels::parse(rest).map(Self::Sentinels),
            None => url.into_connection_info().map(Self::Server).map_err(|_| {
                "must be a URL such as \"redis://USER:PASSWORD@HOST:6379/0\" or \
                 \"redis-sentinel://USER:PASSWORD@HOST:26379,HOST:26379/MASTER/0\""
            }),
        }
    }
}

impl Sentinels {
    fn parse(rest: &str) -> Result<Self, &'static str> {
        if rest.contains(['?', '#']) {
            return Err(
                "takes no ? and no #: write the master's name after the sentinels, as in \
                 \"redis-sentinel://HOST:26379,HOST:26379/MASTER\", and %3F and %23 in a password",
            );
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (master, database) = path.split_once('/').unwrap_or((path, ""));
        if master.is_empty() {
            return Err(
                "must say after the sentinels which master they watch, as in \
                 \"redis-sentinel://HOST:26379,HOST:26379/MASTER\"",
            );
        }
        let in_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !master.chars().all(in_a_name) {
            return Err(
                "must name a master of letters, digits, dots, dashes and underscores after the sentinels; \
                 a / or @ in a password is written as %2F or %40",
            );
        }
        if !database.is_empty() && database.parse::<u32>().is_err() {
            return Err("must have a number as the database, the part after the master's name");
        }
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
            None => (String::new(), authority),
        };
        let sentinels = hosts
            .split(',')
            .map(sentinel)
            .collect::<Option<Vec<_>>>()
            .ok_or(
                "must list the sentinels as HOST or HOST:PORT with a comma between two, as in \
                 \"redis-sentinel://10.0.0.1,10.0.0.2,[fd00::3]:26379/MASTER\"",
            )?;
        // The host stands for the master's, which is not known yet.
        let settings = format!("redis://{credentials}master/{database}")
            .into_connection_info()
            .map_err(
                |_| "must have its user and password in percent-encoding, such as %40 for @",
            )?;
        Ok(Self {
            sentinels,
            master: master.to_owned(),
            settings: settings.redis_settings().clone(),
        })
    }
}

fn sentinel(host: &str) -> Option<ConnectionInfo> {
    // A colon within the brackets of an IPv6 address begins no port.
    let port = host
        .rsplit_once(':')
        .map(|(_, port)| port)
        .filter(|port| !port.ends_with(']'));
    let url = match port {
        Some(port) => {
            port.parse::<u16>().ok().filter(|&port| port > 0)?;
            format!("redis://{host}")
        }
        None => format!("redis://{host}:{SENTINEL_PORT}"),
    };
    url.into_connection_info().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentinels(url: &str) -> Sentinels {
        match RedisUrl::parse(url) {
            Ok(RedisUrl::Sentinels(sentinels)) => sentinels,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn sentinels_are_read_with_their_defaults() {
        for (url, addresses, master, database) in [
            ("redis-sentinel://a/m", "a:26379", "m", 0),
            ("redis-sentinel://a:1/m/", "a:1", "m", 0),
            (
                "redis-sentinel://a:1,b,c:3/my-master_2.x/7",
                "a:1 b:26379 c:3",
                "my-master_2.x",
                7,
            ),
            (
                "redis-sentinel://10.0.0.1,[::1],[fd00::3]:5/m",
                "10.0.0.1:26379 ::1:26379 fd00::3:5",
                "m",
                0,
            ),
        ] {
            let read = sentinels(url);
            let asked: Vec<_> = read
                .sentinels
                .iter()
                .map(|one| one.addr().to_string())
                .collect();
            assert_eq!(asked.join(" "), addresses, "{url}");
            assert_eq!(
                (read.master.as_str(), read.settings.db()),
                (master, database),
                "{url}"
            );
            assert_eq!(read.settings.password(), None);
        }
    }

    #[test]
    fn credentials_are_the_masters_and_decoded_and_not_shown() {
        let read = sentinels("redis-sentinel://user:hush%40%2Fhush@a,b/m");
        assert_eq!(read.settings.username(), Some("user"));
        assert_eq!(read.settings.password(), Some("hush@/hush"));
        for sentinel in &read.sentinels {
            assert_eq!(sentinel.redis_settings().password(), None);
        }
        assert!(!format!("{read:?}").contains("hush"));
        let read = sentinels("redis-sentinel://:hush@a/m");
        assert_eq!(
            (read.settings.username(), read.settings.password()),
            (None, Some("hush"))
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_remedy() {
        for (url, remedy) in [
            ("redis-sentinel://a", "which master"),
            ("redis-sentinel://a,b/", "which master"),
            ("redis-sentinel://a//0", "which master"),
            ("redis-sentinel://a/m%20m", "must name a master"),
            ("redis-sentinel://u:hush/hush@a/m", "must name a master"),
            ("redis-sentinel://a/m/x", "the database"),
            ("redis-sentinel://a/m/0/1", "the database"),
            ("redis-sentinel://a?sentinelMasterId=m", "takes no ?"),
            ("redis-sentinel://a#m", "takes no ?"),
            ("redis-sentinel:///m", "list the sentinels"),
            ("redis-sentinel://a,,b/m", "list the sentinels"),
            ("redis-sentinel://a:/m", "list the sentinels"),
            ("redis-sentinel://a:0/m", "list the sentinels"),
            ("redis-sentinel://a:x/m", "list the sentinels"),
            ("redis-sentinel://a:70000/m", "list the sentinels"),
            ("redis-sentinel://fd00::3/m", "list the sentinels"),
            ("redis-sentinel://a b/m", "list the sentinels"),
            ("redis-sentinel://u:%ff@a/m", "percent-encoding"),
            ("rediss-sentinel://a/m", "redis-sentinel://USER"),
            ("http://a", "redis://USER"),
            ("", "redis://USER"),
        ] {
            let said = RedisUrl::parse(url).map(drop).unwrap_err();
            assert!(said.contains(remedy), "{url}: {said}");
            assert!(!said.contains("hush"), "{said}");
        }
    }

    #[test]
    fn a_server_is_what_the_client_makes_of_it() {
        for url in [
            "redis://h",
            "redis://u:p@h:1/2",
            "redis+unix:///run/redis.sock",
        ] {
            assert!(
                matches!(RedisUrl::parse(url), Ok(RedisUrl::Server(_))),
                "{url}"
            );
        }
    }
}
