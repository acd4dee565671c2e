//! Kernels for matrix units: bfloat16 operands, float32 accumulation, through `mma`, `ldmatrix` and
//! asynchronous copies, which every NVIDIA device from compute capability 8.0 on has. The portable kernels
//! stay the definition of what is computed; these must differ from them by rounding only.

mod attention;
mod attention_grad;
mod fragments;
mod matmul;
mod product;
mod regions;
mod results;
mod tile;

use cubecl::ir::{ContiguousElements, MatrixLayout, MmaProperties, TargetProperties};
use cubecl_cpp::cuda::mma::contiguous_elements_cuda;

pub(crate) use self::attention::{MmaAttention, fits as attention_fits, lower as lower_attention};
pub(crate) use self::attention_grad::{
    MmaAttentionGrad, fits as attention_grad_fits, lower as lower_attention_grad,
};
pub(crate) use self::matmul::{
    MmaMatmul, Walks, fits as matmul_fits, lower as lower_matmul, lower_all as lower_matmuls,
    lower_region as lower_matmul_region, region_fits as matmul_region_fits, walks as matmul_walks,
};

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
