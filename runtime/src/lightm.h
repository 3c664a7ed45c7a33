/* The C interface of the engine: a trained LightM-UNet and nnU-Net's pipeline around it, without torch and nnU-Net.
 *
 * Spatial axes are in nnU-Net's order, (z, y, x); a 2D image has z = 1. All pointers stay the caller's. Structures are
 * mirrored field by field in lightm_runtime/interface.py and in the web page: only 8-byte fields, so that every
 * compiler lays them out alike. */
#pragma once

#include <stdint.h>

#if defined(_WIN32)
#define LIGHTM_EXPORT __declspec(dllexport)
#else
#define LIGHTM_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { LIGHTM_MOST_LEVELS = 8 };

enum LightmStatus {
    LIGHTM_OK = 0,
    LIGHTM_NO_MEMORY = 1,
    LIGHTM_CANCELLED = 2,
    LIGHTM_NOT_FINITE = 3,   /* a voxel of the image is NaN or infinite */
    LIGHTM_NOT_RGB = 4,      /* RGBTo01Normalization: a value below 0 or above 255 */
    LIGHTM_BAD_ARGUMENT = 5, /* sizes, orders, axes or labels outside of what is allowed */
    LIGHTM_BAD_LOGITS = 6,   /* the network computed NaN or infinity */
    LIGHTM_TOO_LARGE = 7,    /* resampled, the image would have more voxels than the engine takes */
};

/* nnunetv2_lightm.networks.LightMUNet, the network of the paper. */
typedef struct {
    int64_t spatial_dims, input_channels, classes, features, levels, bottleneck_layers, expand, states;
    int64_t rvm_layers[LIGHTM_MOST_LEVELS]; /* of each Encoder Block */
    int64_t pooling[LIGHTM_MOST_LEVELS][3]; /* (z, y, x); in 2D z is 1 */
} LightmNetwork;

enum LightmScheme { LIGHTM_Z_SCORE, LIGHTM_CT, LIGHTM_NO_NORMALIZATION, LIGHTM_RESCALE_TO_01, LIGHTM_RGB_TO_01 };

typedef struct {
    int64_t scheme, use_mask;
    double mean, std, lower, upper; /* LIGHTM_CT alone */
} LightmChannel;

/* nnU-Net's resample_data_or_seg_to_shape: spline orders 0, 1 or 3; force_separate_z is 1, 0, or -1 for "where the
 * largest spacing is more than anisotropy_threshold times the smallest". */
typedef struct {
    int64_t order, order_z, force_separate_z;
    double anisotropy_threshold;
} LightmResampling;

typedef struct {
    int64_t patch[3];     /* after transposition; in 2D patch[0] is 1 */
    int64_t transpose[3]; /* axis i of what is worked on is axis transpose[i] of the image */
    double spacing[3];    /* mm, after transposition; in 2D spacing[0] is not read: slices stay as they are */
    LightmResampling data, logits; /* logits: orders 0 and 1 */
    double step, sigma;            /* of the window, in patches, from 0.1 and 0.001; sigma 0: no Gaussian */
    int64_t mirror[3];             /* 1: average over mirroring of this axis */
    const LightmChannel* channels; /* (input_channels) */
    const int64_t* regions;        /* (classes) label that each region writes, 0 to 65535; null: by the largest logit */
} LightmPipeline;

/* Tensors of a fold in the order of lightm_tensor_elements: that of the network, see network.cpp. */
typedef struct {
    LightmNetwork network;
    LightmPipeline pipeline;
    int64_t folds;
    const float* const* tensors; /* (folds * tensors of a fold) */
} LightmModel;

/* Called before the first and after every pass of the network; not 0 cancels. */
typedef int (*LightmProgress)(void* user, int64_t done, int64_t total);

/* Each structure and field by its number from 0 ("LightmModel", "LightmModel.folds"), its offset and size in bytes; null
 * after the last. A caller compares them with its own before it passes a structure. */
LIGHTM_EXPORT const char* lightm_layout(int64_t index, int64_t* offset, int64_t* bytes);
LIGHTM_EXPORT int64_t lightm_tensor_count(const LightmNetwork*);
LIGHTM_EXPORT int64_t lightm_tensor_elements(const LightmNetwork*, int64_t index);
/* 1 where all numbers of a model are within what the structures allow; its tensors are not looked at. */
LIGHTM_EXPORT int lightm_is_sound(const LightmModel*);

/* image: (input_channels, *shape) -> labels: shape, of label_bytes bytes each, 1 or 2: LIGHTM_BAD_ARGUMENT where the
 * model has labels above 255 (a region's, or those of more than 256 classes) and label_bytes is 1. spacing in mm.
 * threads: no more are started than there are cores. */
LIGHTM_EXPORT int lightm_segment(const LightmModel*, const float* image, const int64_t shape[3],
                                 const double spacing[3], void* labels, int64_t label_bytes, int64_t threads,
                                 LightmProgress, void* user);

/* Voxels of each axis of the image, (z, y, x), to which lightm_segment would resample what it crops: for the message
 * where that is too much. They may be more than an integer holds. */
LIGHTM_EXPORT void lightm_resampled_size(const LightmModel*, const float* image, const int64_t shape[3],
                                         const double spacing[3], double size[3]);

/* The steps alone, for tests against their originals. */
LIGHTM_EXPORT int lightm_forward(const LightmNetwork*, const float* const* tensors, const float* image,
                                 const int64_t size[3], float* logits, int64_t threads);
LIGHTM_EXPORT int lightm_resample(const double* in, const int64_t shape[3], const double spacing[3], double* out,
                                  const int64_t new_shape[3], const double new_spacing[3], const LightmResampling*);
LIGHTM_EXPORT int lightm_resample_float(const float* in, const int64_t shape[3], const double spacing[3], float* out,
                                        const int64_t new_shape[3], const double new_spacing[3],
                                        const LightmResampling*);
/* Bounds (first, last + 1) of each axis of what is not 0 in any channel; the whole image where all of it is 0. */
LIGHTM_EXPORT void lightm_crop(const float* image, int64_t channels, const int64_t shape[3], int64_t bounds[6]);
/* In place; mask: 1 where use_mask counts, from lightm_mask. */
LIGHTM_EXPORT int lightm_normalise(float* image, int64_t count, const LightmChannel*, const uint8_t* mask);
LIGHTM_EXPORT int lightm_mask(const float* image, int64_t channels, const int64_t shape[3], uint8_t* mask);
LIGHTM_EXPORT void lightm_gaussian(const int64_t patch[3], int64_t dims, double sigma, float* weights);
/* First voxels of the windows of one axis; returns how many. starts may be null. */
LIGHTM_EXPORT int64_t lightm_window_starts(int64_t size, int64_t patch, double step, int64_t* starts);
/* logits: (classes, *shape) -> labels: new_shape, plane by plane, as lightm_segment does it. */
LIGHTM_EXPORT int lightm_labels(const float* logits, int64_t classes, const int64_t shape[3], const double spacing[3],
                                const int64_t new_shape[3], const double new_spacing[3], const LightmResampling*,
                                const int64_t* regions, uint16_t* labels);
/* Weights of a bundle that are stored in half precision. */
LIGHTM_EXPORT void lightm_half_to_float(const uint16_t* in, float* out, int64_t count);

#ifdef __cplusplus
}
#endif
