//! `pipeline bench --record`: the further measurements that a cost report needs, and the file that it reads.
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::report::Report;
use super::{Bench, MEMORY};
use crate::bench::{
    AnswerUse, HalvesRun, Input, Measures, PostgresUse, Recording, Schema, archive_size, ask_archive,
    measure, questions,
};
use crate::cli::Exit;
use crate::client::ClientError;
use crate::log_type::LogTypes;

impl Bench<'_> {
    /// Before minutes are spent: whether there is a queue to measure, and a place for the file.
    pub(super) fn check_record(&self) -> anyhow::Result<()> {
        let Some(file) = &self.args.record else { return Ok(()) };
        if self.args.via() == MEMORY {
            let reason = "has no queue to record; name redis://host:port".to_owned();
            return Err(ClientError::BadUrl { location: "--via memory".to_owned(), reason }.into());
        }
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(())
    }

    /// Runs the two halves into Postgres and an archive, asks the archive, and writes everything down.
    pub(super) async fn record(
        &self,
        file: &Path,
        input: &Input,
        report: &Report,
        postgres_answers: Vec<PostgresUse>,
    ) -> anyhow::Result<()> {
        let args = &self.args;
        let baseline = report.baseline.as_ref().context("--record needs --baseline")?;
        let schema =
            Schema::reset(self.postgres.connect().await?, &format!("{}_both", args.schema())).await?;
        let stream = format!("{}_both:{}", args.schema(), std::process::id());
        let mut queue = self.queue(&stream).await?.context("--record needs Redis; name one with --via")?;
        let (mut read, mut process) = (Vec::new(), Vec::new());
        read.extend(["--chunk-size".into(), args.chunk_size.clone().into()]);
        if let Some(workers) = args.workers {
            process.extend(["--workers".into(), workers.to_string().into()]);
        }
        let halves = HalvesRun {
            program: std::env::current_exe().context("find this program")?,
            paths: input.paths().to_vec(),
            via: args.via(),
            stream,
            into: args.postgres(),
            schema: schema.name().to_owned(),
            folder: std::env::temp_dir().join(format!("pipeline-record-{}", std::process::id())),
            common: self.common(),
            read,
            process,
        };
        let used = halves.measure().await;
        queue.remove().await?;
        let used = used?;
        if !args.keep {
            schema.drop_all().await?;
        }
        let recording = Recording::try_new(Measures {
            date: chrono::Utc::now().date_naive(),
            cores: report.cores,
            run: &report.run,
            halves: &used,
            archive: archive_size(&halves.archive()).await?,
            archive_answers: self.ask(&halves.archive()).await?,
            postgres_answers,
            old: &baseline.measures,
            bench: report.json()?,
        })?;
        fs::write(file, recording.text()?).with_context(|| format!("cannot write {}", file.display()))
    }

    /// The questions on the archive, in a process that does nothing else.
    async fn ask(&self, archive: &Path) -> anyhow::Result<Vec<AnswerUse>> {
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.args(["bench", "--as-archive-reader"]).arg(archive).args(self.common());
        let (_, output) = measure(&mut command, "bench").await?;
        serde_json::from_str(&output).context("read what the questions took")
    }

    /// What that process does.
    pub(super) async fn read_archive(&self) -> anyhow::Result<Exit> {
        let archive = self.args.as_archive_reader.clone().unwrap_or_default();
        let types = LogTypes::load(self.global.log_types.as_deref())?;
        let used = ask_archive(&archive.to_string_lossy(), &types, questions()).await?;
        writeln!(io::stdout(), "{}", serde_json::to_string(&used)?)?;
        Ok(Exit::DONE)
    }
}
