//! Whether CUDA can run here, found out before the first tensor: Burn's CUDA backend loads what it needs when it needs it,
//! and panics where that is missing.

use std::{
    any::TypeId,
    env,
    panic::{self, UnwindSafe},
    path::{Path, PathBuf},
};

use burn::tensor::backend::Backend;
use burn_cuda::CudaDevice;
use cudarc::{driver::result as driver, nvrtc};

use crate::error::{LoadError, Result};

/// Says what a model on this backend lacks, if it is CUDA's.
pub(crate) fn check<B: Backend>() -> Result<()> {
    if TypeId::of::<B::Device>() != TypeId::of::<CudaDevice>() {
        return Ok(());
    }
    missing().map_or(Ok(()), |missing| Err(LoadError::Cuda { missing }))
}

/// The first thing that is missing, in the order in which it would be needed.
fn missing() -> Option<String> {
    match loaded(|| driver::init().and_then(|()| driver::device::get_count())) {
        None => return Some("the NVIDIA driver (libcuda) cannot be loaded: install it".into()),
        Some(Err(error)) => return Some(format!("the NVIDIA driver found no GPU that it can use ({error})")),
        Some(Ok(0)) => return Some("the NVIDIA driver found no GPU".into()),
        Some(Ok(_)) => {}
    }
    if loaded(|| nvrtc::compile_ptx("")).is_none() {
        return Some(
            "the run-time compiler (libnvrtc) cannot be loaded: install the CUDA toolkit, or put the folder of \
             libnvrtc into LD_LIBRARY_PATH"
                .into(),
        );
    }
    headers(env::var_os("CUDA_PATH").map(PathBuf::from), Path::new("/"))
}

/// What is missing of the headers that kernels are compiled with, given `CUDA_PATH`; without it they are looked for as the
/// backend does, below `root`.
fn headers(cuda_path: Option<PathBuf>, root: &Path) -> Option<String> {
    if cuda_path.is_none() && !cfg!(target_os = "linux") {
        return None; // the backend knows other places there
    }
    // The folder, and what must be there for the backend to take it.
    let usual = [("usr/local/cuda", "usr/local/cuda"), ("opt/cuda", "opt/cuda"), ("usr", "usr/bin/nvcc")];
    let found = usual.into_iter().find(|(_, sign)| root.join(sign).exists());
    let folder = cuda_path.unwrap_or_else(|| root.join(found.unwrap_or(usual[0]).0));
    let header = folder.join("include/cuda_runtime.h");
    (!header.exists()).then(|| {
        format!(
            "the header {} does not exist: install the CUDA toolkit, or set CUDA_PATH to the folder above its `include`",
            header.display()
        )
    })
}

/// What a call into a library returns, or nothing if the library cannot be loaded: cudarc panics then, and whether it
/// would cannot be asked without `unsafe`.
fn loaded<T>(call: impl FnOnce() -> T + UnwindSafe) -> Option<T> {
    panic::catch_unwind(call).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_models_on_cuda_need_it() {
        check::<burn_ndarray::NdArray>().unwrap();
        match (check::<crate::Cuda>(), missing()) {
            (Ok(()), None) => {}
            (Err(error), Some(missing)) => {
                assert_eq!(error.to_string(), format!("CUDA cannot be used here: {missing}"));
            }
            (checked, missing) => panic!("{checked:?} {missing:?}"),
        }
    }

    #[test]
    fn headers_are_looked_for_where_the_backend_does() {
        let root = tempfile::tempdir().unwrap();
        let path = |folder: &str| root.path().join(folder);
        let install = |folder: &str| {
            std::fs::create_dir_all(path(folder).join("include")).unwrap();
            std::fs::write(path(folder).join("include/cuda_runtime.h"), "").unwrap();
        };
        let sentence = headers(Some(path("named")), root.path()).unwrap();
        assert!(sentence.contains("named/include/cuda_runtime.h does not exist") && sentence.contains("CUDA_PATH"));
        install("named");
        assert_eq!(headers(Some(path("named")), root.path()), None);
        if cfg!(target_os = "linux") {
            install("usr"); // not taken without nvcc
            assert!(headers(None, root.path()).unwrap().contains("usr/local/cuda/include"));
            std::fs::create_dir_all(path("usr/bin/nvcc")).unwrap();
            assert_eq!(headers(None, root.path()), None);
            std::fs::create_dir_all(path("opt/cuda")).unwrap(); // taken before, though it is empty
            assert!(headers(None, root.path()).unwrap().contains("opt/cuda/include"));
        }
    }
}
