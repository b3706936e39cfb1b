//! The GPU backends, without Burn's fusion of kernels and without its tuning.
//!
//! With both, as Burn 0.21 has them by default, passes of one row are wrong: among the fused kernels for a product that tuning
//! chooses from is one that does not do what it should (`tests/fusion.rs` has the smallest graph that shows it). So the types are
//! named here and not taken from Burn's own aliases, which mean the fused backend wherever any crate of a program asks for that
//! feature.
//!
//! Tuning takes the kernel that was fastest for one shape for all whose sizes round up to the same powers of two, and
//! panics where that kernel cannot do one of them, as attention to 12 keys with a kernel for multiples of 8. So the feature is
//! left out; a program that turns it on gets the panic.

/// CUDA, by Burn's kernels.
#[cfg(feature = "cuda")]
pub type Cuda = burn_cubecl::CubeBackend<cubecl::cuda::CudaRuntime, f32, i32, u8>;

/// Vulkan, Metal or DirectX 12, by Burn's kernels.
#[cfg(feature = "wgpu")]
pub type Wgpu = burn_wgpu::CubeBackend<burn_wgpu::WgpuRuntime, f32, i32, u32>;
