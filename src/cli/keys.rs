//! `imgate keys`: make sealing keys, and have a running gateway seal anew what earlier keys have sealed.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::operator::{OperatorArgs, refused};
use super::{CliError, runtime};
use crate::proto::v1;
use crate::proto::v1::rotate_keys_response::Report;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Print a fresh sealing key: 32 random bytes in base64.
    New,
    /// Have a gateway seal anew, under its active key, all that another key has sealed, and show how far it is.
    ///
    /// The gateway does it in the background: it goes on if this is interrupted, and a second call watches the rest. The
    /// exit code is 0 only if every record is under the active key. With several replicas, call each of them.
    Rotate(RotateArgs),
}

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand and prints to `out`.
pub(super) fn run(command: KeysCommand, out: &mut impl Write) -> Result<(), CliError> {
    match command {
        KeysCommand::New => new(out),
        KeysCommand::Rotate(args) => runtime()?.block_on(rotate(&args, out)),
    }
}

fn new(out: &mut impl Write) -> Result<(), CliError> {
    let mut key = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *key)
        .map_err(|_| CliError::Failed("the system gives no random bytes"))?;
    let text = Zeroizing::new(STANDARD.encode(*key));
    Ok(writeln!(out, "{}", *text)?)
}

async fn rotate(args: &RotateArgs, out: &mut impl Write) -> Result<(), CliError> {
    let mut admin = args.operator.connect().await?;
    let called = admin.rotate_keys(v1::RotateKeysRequest {}).await;
    let mut reports = called.map_err(refused)?.into_inner();
    let mut summary = None;
    while let Some(report) = reports.message().await.map_err(refused)? {
        match report.report {
            Some(Report::Partition(partition)) if args.json => {
                writeln!(
                    out,
                    "{}",
                    json!({ "partition": partition_json(&partition) })
                )?;
            }
            Some(Report::Partition(partition)) => show_partition(&partition, out)?,
            Some(Report::Summary(end)) => {
                if args.json {
                    writeln!(out, "{}", json!({ "summary": summary_json(&end) }))?;
                } else {
                    show_summary(&end, out)?;
                }
                summary = Some(end);
            }
            // A later version's.
            None => {}
        }
        out.flush()?;
    }
    match summary {
        Some(summary) if summary.complete => Ok(()),
        Some(_) => Err(CliError::Failed(
            "not every record is under the active key: keep the other keys, and see above",
        )),
        None => Err(CliError::Failed(
            "the gateway ended before it was done: call again to go on",
        )),
    }
}

fn show_partition(partition: &v1::PartitionRotation, out: &mut impl Write) -> Result<(), CliError> {
    let v1::PartitionRotation {
        tenant,
        number,
        records,
        total,
        done,
        failed,
        ..
    } = partition;
    let state = state(partition.state());
    let name = format!("{tenant}:{number}");
    write!(out, "{name:<24} {state:<10}")?;
    if *total > 0 {
        write!(out, " {done} of {total} sealed anew")?;
    } else {
        write!(out, " nothing to seal anew")?;
    }
    if *failed > 0 {
        write!(out, ", {failed} failed")?;
    }
    writeln!(out, ", {records} records")?;
    Ok(())
}

fn show_summary(summary: &v1::RotationSummary, out: &mut impl Write) -> Result<(), CliError> {
    let v1::RotationSummary {
        active_key,
        partitions,
        partitions_elsewhere,
        partitions_failed,
        records,
        total,
        done,
        failed,
        old_events,
        ..
    } = summary;
    writeln!(
        out,
        "{partitions} partitions, {records} records: {done} of {total} sealed anew under key {active_key}, {failed} failed"
    )?;
    if *partitions_elsewhere > 0 {
        writeln!(
            out,
            "{partitions_elsewhere} partitions with records under other keys are not held by this replica: call their owners"
        )?;
    }
    if *partitions_failed > 0 {
        writeln!(
            out,
            "{partitions_failed} partitions failed: the gateway's log says why, and Login writes a record anew"
        )?;
    }
    if *old_events > 0 {
        let until = summary.old_events_until.as_ref().map(moment);
        writeln!(
            out,
            "{old_events} events in the logs are under other keys, and are not sealed anew: keep those keys until {}",
            until.unwrap_or_default()
        )?;
    }
    if summary.complete {
        writeln!(
            out,
            "cursors and page tokens made under another key are refused once it is taken out"
        )?;
    }
    Ok(())
}

fn partition_json(partition: &v1::PartitionRotation) -> Value {
    json!({
        "tenant": partition.tenant,
        "number": partition.number,
        "state": state(partition.state()),
        "records": partition.records,
        "total": partition.total,
        "done": partition.done,
        "failed": partition.failed,
        "old_events": partition.old_events,
        "old_events_until": partition.old_events_until.as_ref().map(moment),
    })
}

fn summary_json(summary: &v1::RotationSummary) -> Value {
    json!({
        "complete": summary.complete,
        "active_key": summary.active_key,
        "partitions": summary.partitions,
        "partitions_elsewhere": summary.partitions_elsewhere,
        "partitions_failed": summary.partitions_failed,
        "records": summary.records,
        "total": summary.total,
        "done": summary.done,
        "failed": summary.failed,
        "old_events": summary.old_events,
        "old_events_until": summary.old_events_until.as_ref().map(moment),
    })
}

const fn state(state: v1::RotationState) -> &'static str {
    match state {
        v1::RotationState::Unspecified => "unknown",
        v1::RotationState::Waiting => "waiting",
        v1::RotationState::UnderWay => "under way",
        v1::RotationState::Done => "done",
        v1::RotationState::Elsewhere => "elsewhere",
        v1::RotationState::Failed => "failed",
    }
}

/// RFC 3339 in UTC, in whole seconds rounded up.
fn moment(at: &prost_types::Timestamp) -> String {
    let seconds = u64::try_from(at.seconds).unwrap_or_default();
    let seconds = seconds + u64::from(at.nanos > 0);
    match UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) {
        Some(at) => humantime::format_rfc3339_seconds(at).to_string(),
        None => "a far future".to_owned(),
    }
}
