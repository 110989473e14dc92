//! Trials with artifacts: whether they are taken, noted with their subject, and listed.

use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use serde_json::Value;

use super::Examination;
use super::bench::{Bench, Trouble};
use super::sample::{INDEX, Piece, Sample};
use crate::util::Digest;

impl Bench<'_> {
    pub(super) async fn try_artifacts(&self, subject: &Piece, seen: &mut Examination) {
        let artifact = match Sample::artifact(subject, &self.token) {
            Ok(artifact) => artifact,
            Err(error) => {
                seen.note("artifacts", Err(error.into()));
                return;
            }
        };
        let noted = self.push_artifact(&artifact).await;
        let taken = noted.is_ok();
        let noted = match noted {
            Ok(noted) => {
                seen.note("artifacts", Ok("taken".into()));
                noted.ok_or_else(|| Trouble::no("the registry takes no note of what an artifact refers to"))
            }
            Err(trouble) => {
                seen.note("artifacts", Err(trouble));
                Err(Trouble::unknown("not tried"))
            }
        };
        seen.note("oci-subject", noted);
        let pair = (subject.digest(), artifact.digest());
        seen.note("referrers-api", self.referrers_api(taken.then_some(pair)).await);
    }

    /// Pushes the artifact; gives what the registry says of its subject.
    async fn push_artifact(&self, artifact: &Piece) -> Result<Option<String>, Trouble> {
        self.put_blob(&Sample::note(&self.token)?).await?;
        let answer = self.put_manifest(artifact, None).await?;
        Ok(answer.header("oci-subject").map(|_| "the registry notes what an artifact refers to".to_owned()))
    }

    /// Asks for referrers: of the subject, which must list the artifact, or of something that nobody refers to.
    pub(super) async fn referrers_api(&self, pair: Option<(Digest, Digest)>) -> Result<String, Trouble> {
        let subject = pair.map_or_else(|| Digest::of(&self.token), |(subject, _)| subject);
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(INDEX))]);
        let path = format!("referrers/{subject}");
        let answer = self.ask(&self.place, Method::GET, &path, headers, Vec::new()).await?;
        if answer.status.as_u16() == 404 {
            return Err(Trouble::no("there is none (404 Not Found)"));
        }
        let answer = answer.expect(&[200])?;
        let listed = serde_json::from_slice::<Value>(&answer.body).ok();
        let Some(listed) = listed.as_ref().and_then(|index| index["manifests"].as_array()) else {
            return Err(Trouble::no("there is none: the answer is no index"));
        };
        match pair {
            Some((_, artifact)) if !listed.iter().any(|entry| entry["digest"] == artifact.to_string()) => {
                Err(Trouble::unknown("answers, but does not list what was just pushed"))
            }
            Some(_) => Ok("lists what refers to an image".into()),
            None => Ok("answers".into()),
        }
    }
}
