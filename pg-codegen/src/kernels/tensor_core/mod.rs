//! What kernels for tensor cores share: bfloat16 operands and float32 accumulation through `mma`, `ldmatrix` and
//! asynchronous copies, which every NVIDIA device from compute capability 8.0 on has. The portable kernels define what
//! is computed; those for tensor cores must differ from them by rounding only.

pub(crate) mod fragments;
pub(crate) mod tile;

use cubecl::ir::{ContiguousElements, MatrixLayout, MmaProperties, TargetProperties};
use cubecl_cpp::cuda::mma::contiguous_elements_cuda;

/// How matrices lie in registers, as `cubecl-cuda` says it of every device.
pub(crate) fn target_properties() -> TargetProperties {
    TargetProperties {
        mma: MmaProperties {
            register_size_bits: 32,
            const_plane_size: 32,
            register_layout_a: MatrixLayout::RowMajor,
            register_layout_b: MatrixLayout::ColMajor,
            register_layout_acc: MatrixLayout::RowMajor,
            register_duplication_a: 1,
            register_duplication_b: 1,
            register_duplication_acc: 1,
            contiguous_elements: ContiguousElements::new(contiguous_elements_cuda),
        },
    }
}
