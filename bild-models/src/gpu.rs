//! The GPU backends, without Burn's fusion of kernels.
//!
//! burn-fusion 0.21 computes passes of one row wrongly (the test `fusion` has the smallest graph that shows it), whatever
//! features other crates of a program turn on. So the types are named here, kernel by kernel, and not by Burn's own aliases,
//! which mean the fused backend wherever anyone asks for that feature.

/// CUDA, by Burn's kernels.
#[cfg(feature = "cuda")]
pub type Cuda = burn_cubecl::CubeBackend<cubecl::cuda::CudaRuntime, f32, i32, u8>;

/// Vulkan, Metal or DirectX 12, by Burn's kernels.
#[cfg(feature = "wgpu")]
pub type Wgpu = burn_wgpu::CubeBackend<burn_wgpu::WgpuRuntime, f32, i32, u32>;
