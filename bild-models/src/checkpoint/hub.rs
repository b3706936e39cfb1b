#[cfg(unix)]
use std::os::unix::fs::symlink;
#[cfg(windows)]
use std::os::windows::fs::symlink_file as symlink;
use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache, CacheRepo, Repo, RepoType,
    api::sync::{Api, ApiBuilder, ApiError, ApiRepo},
};

use super::{Checkpoint, WEIGHTS};
use crate::error::{LoadError, Result};

/// The Hugging Face hub: brings checkpoints by name, into the cache that Python's `huggingface_hub` uses too.
///
/// What is in the cache is not fetched again. If the hub cannot be asked, a checkpoint that is there is taken from there.
///
/// ```no_run
/// use bild::{Checkpoint, models::Hub};
///
/// let little = Checkpoint::from_hub("google/flan-t5-small")?;
/// let big = Hub::from_env().with_revision("refs/pr/7").with_progress(true).checkpoint("google/flan-t5-large")?;
/// # Ok::<(), bild::LoadError>(())
/// ```
#[derive(Clone)]
pub struct Hub {
    /// `None` where there is no home directory and nothing names another.
    cache: Option<PathBuf>,
    endpoint: String,
    token: Option<String>,
    revision: String,
    offline: bool,
    progress: bool,
}

/// All but the token, which is nobody's business.
impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cache, endpoint, token, revision, offline, progress } = self;
        let token = token.as_ref().map(|_| "…");
        f.debug_struct("Hub")
            .field("cache", cache)
            .field("endpoint", endpoint)
            .field("token", &token)
            .field("revision", revision)
            .field("offline", offline)
            .field("progress", progress)
            .finish()
    }
}

impl Checkpoint {
    /// Opens a checkpoint of the Hugging Face hub, as in `google/flan-t5-small`, as [`Hub::from_env`] says, without a
    /// progress bar.
    ///
    /// # Errors
    ///
    /// As [`Hub::checkpoint`].
    pub fn from_hub(repository: &str) -> Result<Self> {
        Hub::from_env().checkpoint(repository)
    }
}

impl Hub {
    /// The hub as the environment describes it, with the names that Python's `huggingface_hub` knows:
    ///
    /// - `HF_ENDPOINT` is its address, `https://huggingface.co` if it is not set,
    /// - `HF_HUB_CACHE`, or else `HUGGINGFACE_HUB_CACHE`, or else the folder `hub` in `HF_HOME` is the cache, where `HF_HOME`
    ///   stands for `huggingface` in `XDG_CACHE_HOME` or in `~/.cache` if it is not set,
    /// - `HF_TOKEN` is the token, or else what a login has left in the file `HF_TOKEN_PATH` or `token` in `HF_HOME`,
    /// - with `HF_HUB_OFFLINE`, or else `TRANSFORMERS_OFFLINE`, nothing but the cache is looked at.
    pub fn from_env() -> Self {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(PathBuf::from);
        let yes = |value: String| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        let caches = || path("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")));
        let home = path("HF_HOME").or_else(|| Some(caches()?.join("huggingface")));
        let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let login = || {
            let token = fs::read_to_string(path("HF_TOKEN_PATH").or_else(|| in_home("token"))?).ok()?;
            Some(token.trim().to_owned()).filter(|token| !token.is_empty())
        };
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        Self {
            token: set("HF_TOKEN").or_else(login),
            cache: cache.or_else(|| in_home("hub")),
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            revision: "main".into(),
            offline: set("HF_HUB_OFFLINE").or_else(|| set("TRANSFORMERS_OFFLINE")).is_some_and(yes),
            progress: false,
        }
    }

    /// Sets the branch, tag or commit.
    pub fn with_revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = revision.into();
        self
    }

    /// Sets the folder of the cache.
    pub fn with_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// Sets the address of the hub, without a slash at its end.
    pub fn with_endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// Sets the token, for repositories that are not open to all.
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets whether nothing but the cache is looked at.
    pub fn with_offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// Sets whether a progress bar is drawn on standard error, which is not so by default.
    pub fn with_progress(mut self, progress: bool) -> Self {
        self.progress = progress;
        self
    }

    /// Opens a checkpoint by its name, `owner/name`, and fetches what is missing of it first. All files are of one commit.
    ///
    /// # Errors
    ///
    /// [`LoadError::Hub`] if the name or the revision makes no sense, or the files cannot be fetched and are not in the
    /// cache; otherwise as [`Checkpoint::open`].
    pub fn checkpoint(&self, repository: &str) -> Result<Checkpoint> {
        let plain = |name: &str, slashes: usize| {
            let parts: Vec<_> = name.split('/').collect();
            parts.len() <= slashes + 1 && parts.into_iter().all(is_plain)
        };
        if !plain(repository, 1) {
            return Err(self.error(repository, "that is not a name on the hub, as in owner/name".into()));
        }
        if !plain(&self.revision, 8) {
            return Err(self.error(repository, "that is not the name of a revision".into()));
        }
        let Some(cache) = &self.cache else {
            return Err(self.error(repository, "there is no home directory for its cache: set HF_HOME".into()));
        };
        let repo = Repo::with_revision(repository.into(), RepoType::Model, self.revision.clone());
        if self.offline {
            let snapshot = snapshot(cache, &repo);
            let missing = || format!("it is not in the cache, {}, and the hub is not asked (offline)", cache.display());
            return Checkpoint::open(snapshot.ok_or_else(|| self.error(repository, missing()))?);
        }
        match self.fetch(cache, &repo) {
            Ok(folder) => Checkpoint::open(folder),
            Err(Reason(error)) => match snapshot(cache, &repo).map(Checkpoint::open) {
                Some(Ok(checkpoint)) => {
                    tracing::warn!(repository, %error, "it could not be fetched from the hub: the checkpoint is from the cache");
                    Ok(checkpoint)
                }
                _ => Err(self.error(repository, error)),
            },
        }
    }

    /// Fetches what the cache lacks, and returns the folder of the commit that the revision stands for now.
    fn fetch(&self, cache: &Path, repo: &Repo) -> Result<PathBuf, Reason> {
        let api = ApiBuilder::from_cache(Cache::new(cache.into()))
            .with_endpoint(self.endpoint.clone())
            .with_progress(self.progress)
            .with_token(self.token.clone())
            .with_retries(3)
            .build()?;
        let info = api.repo(repo.clone()).info()?;
        // It becomes a part of paths.
        if !is_plain(&info.sha) {
            return Err(Reason(format!("it says that the commit is {:?}, expected a hash", info.sha)));
        }
        let there: Vec<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
        let cached = Cache::new(cache.into()).repo(repo.clone());
        let commit = api.repo(Repo::with_revision(repo.url(), RepoType::Model, info.sha.clone()));
        let folder = cached.pointer_path(&info.sha);
        for name in wanted(&there) {
            if !folder.join(name).exists() {
                fetch_file(&api, &commit, &cached, &info.sha, name)?;
            }
        }
        cached.create_ref(&info.sha)?;
        Ok(folder)
    }

    fn error(&self, repository: &str, reason: String) -> LoadError {
        LoadError::Hub {
            repository: repository.into(),
            revision: self.revision.clone(),
            endpoint: self.endpoint.clone(),
            reason,
        }
    }
}

/// Why a checkpoint cannot be fetched.
struct Reason(String);

impl From<ApiError> for Reason {
    fn from(error: ApiError) -> Self {
        let text = error.to_string();
        let hint = match error {
            // Only a hub that answers can want another name or a token.
            _ if text.contains("http status") => " (is the name right? does it need HF_TOKEN?)",
            ApiError::RequestError(_) | ApiError::TooManyRetries(_) => " (is it reachable from here?)",
            ApiError::IoError(_) => " (can the cache be written to?)",
            _ => "",
        };
        Self(text + hint)
    }
}

impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        ApiError::from(error).into()
    }
}

/// Brings a file of a commit into the commit's folder, from the blobs of the cache if it is there.
fn fetch_file(api: &Api, commit: &ApiRepo, cached: &CacheRepo, sha: &str, name: &str) -> Result<(), Reason> {
    let metadata = api.metadata(&commit.url(name))?;
    // Both become parts of paths.
    if metadata.commit_hash() != sha {
        let found = metadata.commit_hash();
        return Err(Reason(format!("it says that {name} is of the commit {found:?}, expected {sha}")));
    }
    let etag = metadata.etag();
    // It may be anything, but its file is to lie among the blobs. A weak one begins with `W/`.
    let leads_out = |c: char| c.is_control() || "/\\:".contains(c);
    let own = etag.strip_prefix("W/").unwrap_or(etag);
    if own.is_empty() || own.starts_with('.') || own.contains(leads_out) {
        return Err(Reason(format!("{name} has the etag {etag:?}, which can be no name of a file")));
    }
    let (blob, file) = (cached.blob_path(etag), cached.pointer_path(sha).join(name));
    loop {
        if !file.exists() && fs::metadata(&blob).is_ok_and(|blob| blob.len() == metadata.size() as u64) {
            // Where neither kind of link can be had, the file is fetched instead.
            let _ = link(&blob, etag, &file);
        }
        if file.exists() {
            return Ok(());
        }
        match commit.download(name) {
            Ok(_) => return Ok(()),
            // Another process is fetching it. Its lock ends when it does, however long that takes.
            Err(ApiError::LockAcquisition(lock)) => {
                tracing::info!(file = name, "another process is fetching this file, and is waited for");
                fs::File::create(lock)?.lock()?;
            }
            // Another process may have made the link in the same moment.
            Err(_) if file.exists() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes a blob of the cache a file of a commit, `snapshots/COMMIT/NAME`.
fn link(blob: &Path, etag: &str, file: &Path) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    // Windows may want a privilege for a symbolic link.
    let target = Path::new("..").join("..").join("blobs").join(etag);
    symlink(target, file).or_else(|_| fs::hard_link(blob, file))
}

/// Whether a name can be a part of a path that leads nowhere else.
fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(allowed)
}

/// The folder of the commit that the cache has for a revision.
fn snapshot(cache: &Path, repo: &Repo) -> Option<PathBuf> {
    let reference = cache.join(repo.folder_name()).join("refs").join(repo.revision());
    let commit = fs::read_to_string(reference).unwrap_or_else(|_| repo.revision().into());
    Some(Cache::new(cache.into()).repo(repo.clone()).pointer_path(commit.trim())).filter(|folder| folder.is_dir())
}

/// Of the files of a repository, those that a checkpoint is made of: one form of weights, the first that is opened.
fn wanted<'a>(there: &[&'a str]) -> Vec<&'a str> {
    let has_json = there.contains(&"tokenizer.json");
    let beside = |name: &&str| Checkpoint::FILES.contains(name) && !(has_json && *name == "spiece.model");
    let mut wanted: Vec<_> = there.iter().copied().filter(beside).collect();
    for name in WEIGHTS {
        let (stem, ending) = name.split_once('.').unwrap_or((name, ""));
        let index = format!("{name}.index.json");
        let is_weights = |file: &&str| {
            if there.contains(&name) {
                return *file == name;
            }
            // model-00001-of-00002.safetensors
            let part = file.strip_prefix(stem).and_then(|rest| rest.strip_suffix(ending));
            *file == index || part.is_some_and(|part| part.starts_with('-') && part.ends_with('.') && is_plain(file))
        };
        if there.contains(&name) || there.contains(&index.as_str()) {
            wanted.extend(there.iter().copied().filter(is_weights));
            break;
        }
    }
    wanted
}
