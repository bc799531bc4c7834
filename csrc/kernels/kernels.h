// The CUDA kernels as the tensor layer sees them: one launcher per op. Each puts its kernels on
// `stream` of the current device and returns; nothing waits for the device, so everything can be
// captured in a CUDA graph. Arguments are as `args.h` says; on the device unless they are sizes.
#pragma once

#include <cuda_runtime.h>

#include "../args.h"

namespace disco_fast {

cudaError_t launch_sp_pool(const SpPoolArgs& args, cudaStream_t stream);
cudaError_t launch_sp_diffuse(const SpDiffuseArgs& args, cudaStream_t stream);
cudaError_t launch_sp_correlate(const SpCorrelateArgs& args, cudaStream_t stream);

// An index of `init` outside 0..P-1 gives labels and iterations of -1 for its image: there is
// nobody to throw without waiting for the device.
cudaError_t launch_kmeans(const KMeansArgs& args, cudaStream_t stream);
// Bytes that KMeansArgs::workspace must have; 0 where shared memory is enough. `error` is set where
// not even one point fits.
int64_t kmeans_workspace(const KMeansArgs& args, cudaError_t* error);
cudaError_t launch_kmeans_init(const KMeansInitArgs& args, cudaStream_t stream);
cudaError_t launch_anchors(const AnchorArgs& args, cudaStream_t stream);

// One cooperative launch: all its blocks are resident at once.
cudaError_t launch_encoder(const EncoderArgs& args, cudaStream_t stream);
int64_t encoder_workspace(const EncoderArgs& args);  // bytes that EncoderArgs::workspace must have

cudaError_t launch_bias_act(const BiasActArgs& args, cudaStream_t stream);
// On a GPU before compute capability 8.0: cudaErrorNoKernelImageForDevice.
cudaError_t launch_convolve(const ConvolveArgs& args, cudaStream_t stream);
cudaError_t launch_associate(const AssociateArgs& args, cudaStream_t stream);

cudaError_t launch_rgb_to_l(const RgbToLArgs& args, cudaStream_t stream);
cudaError_t launch_lab_to_rgb(const LabToRgbArgs& args, cudaStream_t stream);

}  // namespace disco_fast
