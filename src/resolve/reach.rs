//! Whether channels can be reached, without reading their indexes.

use std::path::Path;

use reqwest::StatusCode;
use url::Url;

use super::client::{certificate_hint, chain};
use super::{Channels, http_client};
use crate::util::{Error, Result, files};

/// What every channel has, in the forms that it may have it in.
const INDEXES: [&str; 2] = ["noarch/repodata.json.zst", "noarch/repodata.json"];

/// Asks each channel whether it has an index for all platforms. Gives the channels' URLs, without credentials, each
/// with the form of the index that was found or why there is none.
///
/// # Errors
/// When no client can be made.
pub async fn reach(channels: &Channels) -> Result<Vec<(Url, Result<&'static str>)>> {
    let client = http_client(false, &channels.credentials)?;
    let mut found = Vec::new();
    for url in channels.urls() {
        let result = match url.to_file_path() {
            Ok(folder) if url.scheme() == "file" => look(&folder),
            _ => ask(&client, channels, &url).await,
        };
        found.push((url, result));
    }
    Ok(found)
}

fn look(folder: &Path) -> Result<&'static str> {
    for index in INDEXES {
        if files::find(&folder.join(index))?.is_some_and(|metadata| metadata.is_file()) {
            return Ok(index);
        }
    }
    Err(Error::user(format!("the folder has no `{}`", INDEXES[1])))
}

async fn ask(
    client: &reqwest_middleware::ClientWithMiddleware,
    channels: &Channels,
    channel: &Url,
) -> Result<&'static str> {
    let mut status = StatusCode::NOT_FOUND;
    for index in INDEXES {
        let url = format!("{}/{index}", channel.as_str().trim_end_matches('/'));
        let answer = client.head(url).send().await.map_err(|error| {
            let reason = channels.credentials.scrub(&chain(&error));
            let hint = certificate_hint(&reason).unwrap_or("check the URL, the network and the proxy");
            Error::user(reason).hint(hint)
        })?;
        status = answer.status();
        if status.is_success() {
            return Ok(index);
        }
        // S3 says 403 for what is not there to whoever may not list a bucket.
        if !matches!(status, StatusCode::NOT_FOUND | StatusCode::FORBIDDEN) {
            break;
        }
    }
    let way = channels.credentials.way(channel).map(|way| format!(", asked by way of {way}")).unwrap_or_default();
    let error = Error::user(format!("it answered {status}{way}"));
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            error.hint("it wants a login: `pixi auth login`, `anaconda login`, `.netrc`, or credentials in the URL")
        }
        StatusCode::NOT_FOUND => error.hint("check the name: there is no index of a channel"),
        _ => error,
    })
}
