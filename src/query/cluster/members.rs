//! The workers that a statement may use: those of the list that answer now.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use datafusion::error::{DataFusionError, Result};
use datafusion_distributed::{GetWorkerInfoRequest, WorkerResolver};
use futures_util::future::join_all;
use url::Url;

use super::VERSION;
use super::channel::Channels;
use super::failure::{WorkerFailure, WorkerTrouble};
use super::token::ClusterToken;
use crate::query::QueryError;
use crate::query::error::external;

/// A worker that takes longer to say who it is would hold up the statement.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A list of workers, asked anew for every statement.
#[derive(Debug)]
pub struct Cluster {
    /// `host:port`; a name that stands for several addresses is as many workers.
    names: Vec<String>,
    pub(super) channels: Channels,
    pub(super) workers: Workers,
}

/// Those that answered last.
#[derive(Debug, Clone, Default)]
pub(super) struct Workers(Arc<RwLock<Vec<Url>>>);

impl WorkerResolver for Workers {
    fn get_urls(&self) -> Result<Vec<Url>, DataFusionError> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Cluster {
    /// The workers at `names`, each `host:port`.
    pub fn try_new(names: Vec<String>, token: Option<ClusterToken>) -> Result<Self, QueryError> {
        if names.is_empty() {
            return Err(QueryError::Cluster(
                "the list of workers is empty; name one as HOST:PORT".to_owned(),
            ));
        }
        for name in &names {
            let port = name.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if !port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                return Err(QueryError::Cluster(format!("{name} is no worker; write HOST:PORT")));
            }
        }
        Ok(Self { names, channels: Channels::new(token), workers: Workers::default() })
    }

    /// Finds out which workers answer, and leaves out those at `without`. An error if none does, or one refuses.
    pub(in crate::query) async fn look(&self, without: &[String]) -> Result<(), QueryError> {
        let of_names = join_all(self.names.iter().map(|name| self.ask_all(name, without))).await;
        // a worker has one identity however many of its addresses answer
        let (mut found, mut silent, mut absent) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (name, answers) in self.names.iter().zip(of_names) {
            let mut lost = Vec::new();
            let num_before = found.len();
            for answer in answers {
                match answer {
                    Ok((identity, url)) => {
                        found.insert(identity, url);
                    }
                    Err(failure) if failure.trouble == WorkerTrouble::Lost => lost.push(failure),
                    Err(failure) => return Err(QueryError::Worker(failure)),
                }
            }
            // another address of a name may answer for it
            if let (Some(first), true) = (lost.first(), found.len() == num_before) {
                absent.push(format!("{name}: {first}"));
            }
            silent.extend(lost);
        }
        if found.is_empty() {
            let silent: Vec<_> = silent.iter().map(ToString::to_string).collect();
            let left_out = without.iter().map(|worker| format!("{worker} was lost before"));
            return Err(QueryError::NoWorker(
                silent.into_iter().chain(left_out).collect::<Vec<_>>().join("; "),
            ));
        }
        for absent in absent {
            tracing::warn!("{absent}; the statement runs on the others");
        }
        *self.workers.0.write().unwrap_or_else(PoisonError::into_inner) = found.into_values().collect();
        Ok(())
    }

    async fn ask_all(&self, name: &str, without: &[String]) -> Vec<Result<(String, Url), WorkerFailure>> {
        let addresses = match tokio::time::timeout(ANSWER_TIMEOUT, tokio::net::lookup_host(name)).await {
            Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
            Ok(Err(error)) => return vec![Err(WorkerFailure::lost(name, error.to_string()))],
            Err(_) => return vec![Err(WorkerFailure::lost(name, "its name is not resolved in time"))],
        };
        let addresses = addresses.into_iter().filter(|address| !without.contains(&address.to_string()));
        join_all(addresses.map(|address| self.ask(address))).await
    }

    /// The identity of the worker at `address`.
    async fn ask(&self, address: SocketAddr) -> Result<(String, Url), WorkerFailure> {
        let worker = address.to_string();
        let lost = |error: DataFusionError| {
            WorkerFailure::of(&error).unwrap_or_else(|| WorkerFailure::lost(&worker, error.to_string()))
        };
        let url = Url::parse(&format!("http://{address}")).map_err(|error| lost(external(error)))?;
        let mut client = self.channels.worker(&url).map_err(lost)?;
        let answer = client.get_worker_info(GetWorkerInfoRequest {});
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
        let answer = answer.map_err(|_| WorkerFailure::lost(&worker, "it does not answer in time"))?;
        let identity = answer.map_err(lost)?.version;
        match identity.rsplit_once(' ') {
            Some((VERSION, _)) => Ok((identity, url)),
            other => {
                let theirs = other.map_or(identity.as_str(), |(version, _)| version);
                let reason = format!("it is {theirs}, and this is {VERSION}; run one version everywhere");
                Err(WorkerFailure::refused(&worker, reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_that_names_no_worker_is_refused_and_a_silent_one_is_named() {
        for names in [vec![], vec!["host"], vec!["host:"], vec![":7"], vec!["host:0"], vec!["h:1", "h:x"]] {
            let names = names.into_iter().map(str::to_owned).collect();
            assert!(matches!(Cluster::try_new(names, None), Err(QueryError::Cluster(_))));
        }
        // nothing listens on a port that was just free
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = Cluster::try_new(vec![address.clone()], None).unwrap().look(&[]).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, QueryError::NoWorker(_)) && text.contains(&address), "{text}");
    }
}
