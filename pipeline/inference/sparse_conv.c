/* Convolutions with unstructured sparse kernels, and the elementwise steps around them.
 *
 * An activation is [channel][position][image], float32, with the B images of a block innermost.
 * A position is a pixel of the zero-padded image (pipeline/inference/layout.py), so an output of
 * stride 1 at position p is  sum_k w[k] * in[p * B + offset[k]],  and a tile of P vectors of
 * neighbouring floats needs for every kept weight one broadcast and P multiply-adds whose factors
 * are loaded from memory. P sums stay in registers.
 *
 * VL is the number of floats in a vector; GCC's and Clang's vector types compile for any
 * processor.
 */
#include <stdint.h>
#include <string.h>

#ifndef VL
#define VL 4
#endif
#if VL == 16 /* 32 registers */
#define DENSE_TILE 6
#else /* 16 registers */
#define DENSE_TILE 3
#endif
#define BLOCK 16            /* images of a full block; strides are supported inside of one */
#define PER (BLOCK / VL)    /* vectors of a position of a full block */
#define GROUP 4             /* outputs that the dense kernel computes at once */
#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

typedef float vec __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(VL * 4), aligned(4), may_alias));

typedef struct { int32_t offset; float weight; } entry;             /* offset in bytes */
typedef struct { int32_t offset; float weight[GROUP]; } group_entry;
typedef struct { int32_t in, out, vectors; } tile;                  /* starts in floats */

enum { CONV, DENSE, AFFINE, POOL, GATHER, LOAD, STORE };

typedef struct {                  /* one step; pipeline/inference/library.py has the same fields */
  int32_t kind, channels, out_channels, chunks, tiles, stride, height, width;
  int32_t block, in_pitch, out_pitch, io, maximum, stride_y, ahead;
  float low, high;
  int64_t in, out, residual;      /* floats from the start of the workspace; residual -1: none */
  int64_t in_plane, out_plane;    /* floats of a channel */
  const void *entries;            /* CONV, DENSE: kept weights by chunk of channels and output */
  const int32_t *rows;            /* first entry of each chunk and output */
  const tile *tile;
  const int32_t *mask;            /* all bits of the floats of a tile that are pixels; or NULL */
  const float *scale, *shift;     /* by channel; shift is CONV's bias */
  const int32_t *window;          /* POOL: y0, y1 by row, x0, x1 by column; GATHER: phases */
  const float *weights;           /* POOL: 1 / divisor by position */
} step;

typedef struct { const float *residual; const int32_t *mask; float bias, low, high; } epilogue;

INLINE vec above(vec x, float low) { /* max(x, low); NaN stays */
  vec bound = low - (vec){0};
  return (vec)(((ivec)x & ~(x < bound)) | ((ivec)bound & (x < bound)));
}

INLINE vec below(vec x, float high) {
  vec bound = high - (vec){0};
  return (vec)(((ivec)x & ~(x > bound)) | ((ivec)bound & (x > bound)));
}

INLINE void finish(float *out, vec *sum, int vectors, const epilogue *e) {
  UNROLL for (int i = 0; i < vectors; i++) sum[i] += e->bias;
  if (e->residual) UNROLL for (int i = 0; i < vectors; i++) sum[i] += *(const vec *)(e->residual + VL * i);
  if (e->low > -__builtin_inff()) UNROLL for (int i = 0; i < vectors; i++) sum[i] = above(sum[i], e->low);
  if (e->high < __builtin_inff()) UNROLL for (int i = 0; i < vectors; i++) sum[i] = below(sum[i], e->high);
  if (e->mask)
    UNROLL for (int i = 0; i < vectors; i++) sum[i] = (vec)((ivec)sum[i] & *(const ivec *)(e->mask + VL * i));
  UNROLL for (int i = 0; i < vectors; i++) *(vec *)(out + VL * i) = sum[i];
}

/* P vectors of one output; S is the stride, which only full blocks have. A sum of one vector waits
 * for the one before, so small tiles have WAYS sums, of every WAYS-th weight. */
#define AT(i, S) ((i) / PER * (S) * BLOCK + (i) % PER * VL)
#define WAYS(P) ((P) < 3 ? 4 : (P) < 6 ? 2 : 1)
#define TERM(P, S, J)                                                                             \
  do {                                                                                            \
    const float *s = (const float *)((const char *)in + k[J].offset);                             \
    float w = k[J].weight;                                                                        \
    UNROLL for (int i = 0; i < P; i++) sum[J][i] += w * *(const vec *)(s + AT(i, S));             \
  } while (0)
#define SPARSE(P, S)                                                                              \
  static void sparse_##S##_##P(const float *restrict in, const entry *k, const entry *end,        \
                               float *restrict out, int first, const epilogue *e) {               \
    vec sum[WAYS(P)][P];                                                                          \
    UNROLL for (int i = 0; i < P; i++) sum[0][i] = first ? (vec){0} : *(const vec *)(out + VL * i); \
    if (WAYS(P) > 1) {                                                                            \
      UNROLL for (int j = 1; j < WAYS(P); j++)                                                    \
        UNROLL for (int i = 0; i < P; i++) sum[j][i] = (vec){0};                                  \
      for (; k + WAYS(P) <= end; k += WAYS(P))                                                    \
        UNROLL for (int j = 0; j < WAYS(P); j++) TERM(P, S, j);                                   \
      UNROLL for (int j = 1; j < WAYS(P); j++)                                                    \
        UNROLL for (int i = 0; i < P; i++) sum[0][i] += sum[j][i];                                \
    }                                                                                             \
    for (; k < end; k++) TERM(P, S, 0);                                                           \
    if (e) finish(out, sum[0], P, e);                                                             \
    else { UNROLL for (int i = 0; i < P; i++) *(vec *)(out + VL * i) = sum[0][i]; }               \
  }

/* GROUP outputs of P vectors: every loaded vector is used GROUP times. */
#define DENSELY(P, S)                                                                             \
  static void dense_##S##_##P(const float *restrict in, const group_entry *k,                     \
                              const group_entry *end, float *restrict out, int64_t plane,         \
                              int outputs, int first, const epilogue *e) {                        \
    vec sum[GROUP][P];                                                                            \
    UNROLL for (int g = 0; g < GROUP; g++) UNROLL for (int i = 0; i < P; i++)                     \
      sum[g][i] = first || g >= outputs ? (vec){0} : *(const vec *)(out + g * plane + VL * i);    \
    for (; k < end; k++) {                                                                        \
      const float *s = (const float *)((const char *)in + k->offset);                             \
      vec x[P];                                                                                   \
      UNROLL for (int i = 0; i < P; i++) x[i] = *(const vec *)(s + AT(i, S));                     \
      UNROLL for (int g = 0; g < GROUP; g++) {                                                    \
        float w = k->weight[g];                                                                   \
        UNROLL for (int i = 0; i < P; i++) sum[g][i] += w * x[i];                                 \
      }                                                                                           \
    }                                                                                             \
    UNROLL for (int g = 0; g < GROUP; g++) if (g < outputs) {                                     \
      if (e) finish(out + g * plane, sum[g], P, e + g);                                           \
      else UNROLL for (int i = 0; i < P; i++) *(vec *)(out + g * plane + VL * i) = sum[g][i];     \
    }                                                                                             \
  }

#define LOW_TILES(M, S) M(1, S) M(2, S) M(3, S) M(4, S) M(5, S) M(6, S) M(7, S) M(8, S) M(9, S) \
  M(10, S) M(11, S) M(12, S)
#define HIGH_TILES(M, S) M(13, S) M(14, S) M(15, S) M(16, S) M(17, S) M(18, S) M(19, S) M(20, S) \
  M(21, S) M(22, S) M(23, S) M(24, S) M(25, S) M(26, S) M(27, S) M(28, S)
#define NAME(P, S) sparse_##S##_##P,
#define DENSE_NAME(P, S) dense_##S##_##P,
#if VL == 16
#define TILES(M, S) LOW_TILES(M, S) HIGH_TILES(M, S)
#define DENSE_TILES(M, S) M(1, S) M(2, S) M(3, S) M(4, S) M(5, S) M(6, S)
#else
#define TILES(M, S) LOW_TILES(M, S)
#define DENSE_TILES(M, S) M(1, S) M(2, S) M(3, S)
#endif
TILES(SPARSE, 1) TILES(SPARSE, 2) DENSE_TILES(DENSELY, 1) DENSE_TILES(DENSELY, 2)
typedef void (*sparse_kernel)(const float *, const entry *, const entry *, float *, int, const epilogue *);
typedef void (*dense_kernel)(const float *, const group_entry *, const group_entry *, float *, int64_t,
                             int, int, const epilogue *);
static const sparse_kernel SPARSE_KERNELS[2][29] = {{0, TILES(NAME, 1)}, {0, TILES(NAME, 2)}};
static const dense_kernel DENSE_KERNELS[2][7] = {{0, DENSE_TILES(DENSE_NAME, 1)},
                                                 {0, DENSE_TILES(DENSE_NAME, 2)}};

static epilogue ending(const step *p, const float *ws, int o, const tile *t) {
  int64_t at = o * p->out_plane + t->out;
  return (epilogue){p->residual < 0 ? 0 : ws + p->residual + at,
                    p->mask ? p->mask + t->out - p->tile->out : 0, p->shift[o], p->low, p->high};
}

/* While output o of a tile is computed, lines that the tile below will read and write first. */
INLINE void prefetch(const step *p, const float *ws, const tile *t, int o) {
  int lines = t->vectors * VL / BLOCK * p->stride;
  int c = (int64_t)o * p->channels / p->out_channels, end = (int64_t)(o + 1) * p->channels / p->out_channels;
  for (; c < end; c++) {
    const float *in = ws + p->in + c * p->in_plane + t->in + p->ahead;
    for (int i = 0; i < lines; i++) __builtin_prefetch(in + i * BLOCK, 0, 2);
  }
}

static void convolve(const step *p, float *ws) {
  const entry *entries = p->entries;
  for (int i = 0; i < p->tiles; i++) {
    const tile *t = p->tile + i;
    sparse_kernel kernel = SPARSE_KERNELS[p->stride - 1][t->vectors];
    for (int c = 0; c < p->chunks; c++) {
      const int32_t *rows = p->rows + (int64_t)c * p->out_channels;
      int first = c == 0, last = c == p->chunks - 1;
      for (int o = 0; o < p->out_channels; o++) {
        epilogue e;
        if (first && p->ahead) prefetch(p, ws, t, o);
        if (last) e = ending(p, ws, o, t);
        else if (!first && rows[o] == rows[o + 1]) continue;
        kernel(ws + p->in + t->in, entries + rows[o], entries + rows[o + 1],
               ws + p->out + o * p->out_plane + t->out, first, last ? &e : 0);
      }
    }
  }
}

static void convolve_densely(const step *p, float *ws) {
  const group_entry *entries = p->entries;
  int groups = (p->out_channels + GROUP - 1) / GROUP;
  for (int i = 0; i < p->tiles; i++) {
    const tile *t = p->tile + i;
    dense_kernel kernel = DENSE_KERNELS[p->stride - 1][t->vectors];
    for (int c = 0; c < p->chunks; c++) {
      const int32_t *rows = p->rows + (int64_t)c * groups;
      for (int j = 0; j < groups; j++) {
        int o = j * GROUP, outputs = p->out_channels - o < GROUP ? p->out_channels - o : GROUP;
        epilogue e[GROUP];
        for (int g = 0; g < outputs; g++) e[g] = ending(p, ws, o + g, t);
        kernel(ws + p->in + t->in, entries + rows[j], entries + rows[j + 1],
               ws + p->out + o * p->out_plane + t->out, p->out_plane, outputs, c == 0,
               c == p->chunks - 1 ? e : 0);
      }
    }
  }
}

/* out = min(max(scale * in + shift + residual, low), high) on the pixels. */
static void affine(const step *p, float *ws) {
  int64_t n = (int64_t)p->width * p->block;
  for (int c = 0; c < p->channels; c++) {
    float scale = p->scale ? p->scale[c] : 1, shift = p->shift ? p->shift[c] : 0;
    for (int y = 0; y < p->height; y++) {
      int64_t at = c * p->out_plane + (int64_t)y * p->out_pitch * p->block;
      const float *in = ws + p->in + c * p->in_plane + (int64_t)y * p->in_pitch * p->block;
      const float *residual = p->residual < 0 ? 0 : ws + p->residual + at;
      float *out = ws + p->out + at;
      for (int64_t i = 0; i < n; i++) {
        float x = scale * in[i] + shift + (residual ? residual[i] : 0);
        x = x < p->low ? p->low : x;
        out[i] = x > p->high ? p->high : x;
      }
    }
  }
}

static void pool(const step *p, float *ws) {
  const int32_t *y0 = p->window, *y1 = y0 + p->height, *x0 = y1 + p->height, *x1 = x0 + p->width;
  for (int c = 0; c < p->channels; c++)
    for (int oy = 0; oy < p->height; oy++)
      for (int ox = 0; ox < p->width; ox++) {
        float *out = ws + p->out + c * p->out_plane + ((int64_t)oy * p->out_pitch + ox) * p->block;
        float sum[BLOCK];
        for (int b = 0; b < p->block; b++) sum[b] = p->maximum ? -__builtin_inff() : 0;
        for (int y = y0[oy]; y < y1[oy]; y++)
          for (int x = x0[ox]; x < x1[ox]; x++) {
            const float *in = ws + p->in + c * p->in_plane + ((int64_t)y * p->in_pitch + x) * p->block;
            if (p->maximum) for (int b = 0; b < p->block; b++) sum[b] = in[b] <= sum[b] ? sum[b] : in[b];
            else for (int b = 0; b < p->block; b++) sum[b] += in[b];
          }
        float weight = p->maximum ? 1 : p->weights[oy * p->width + ox];
        for (int b = 0; b < p->block; b++) out[b] = sum[b] * weight;
      }
}

/* Phase (a, b) of an image has its pixels (stride * y + a, stride * x + b), 0 outside of it:
 * window = input height, input width, then a, b by phase; out is [channel][phase][height][pitch]. */
static void gather(const step *p, float *ws) {
  const int32_t *phase = p->window + 2;
  int64_t block = p->block;
  for (int c = 0; c < p->channels; c++)
    for (int k = 0; k < p->out_channels; k++) {
      float *out = ws + p->out + ((int64_t)c * p->out_channels + k) * p->out_plane;
      int a = phase[2 * k], b = phase[2 * k + 1], s = p->stride;
      int x0 = b < 0 ? (s - 1 - b) / s : 0, x1 = (p->window[1] - b + s - 1) / s;
      if (x1 > p->out_pitch) x1 = p->out_pitch;
      if (x1 < x0) x1 = x0 = 0;
      for (int y = 0; y < p->height; y++, out += p->out_pitch * block) {
        int iy = y * p->stride_y + a;
        if (iy < 0 || iy >= p->window[0]) {
          memset(out, 0, p->out_pitch * block * sizeof(float));
          continue;
        }
        const float *in = ws + p->in + c * p->in_plane + ((int64_t)iy * p->in_pitch + b) * block;
        for (int64_t i = 0; i < x0 * block; i++) out[i] = 0;
        for (int64_t i = x1 * block; i < p->out_pitch * block; i++) out[i] = 0;
        if (block == 1 && s == 2) for (int x = x0; x < x1; x++) out[x] = in[2 * x];
        else for (int x = x0; x < x1; x++)
          for (int64_t i = 0; i < block; i++) out[x * block + i] = in[x * s * block + i];
      }
    }
}

/* Images [n, channels, height, width] to the layout of a block and back; missing images are 0. */
static void load(const step *p, float *ws, const float *images, int n) {
  int64_t pixels = (int64_t)p->height * p->width;
  for (int c = 0; c < p->channels; c++)
    for (int y = 0; y < p->height; y++) {
      const float *in = images + c * pixels + (int64_t)y * p->width;
      float *out = ws + p->out + c * p->out_plane + (int64_t)y * p->out_pitch * p->block;
      for (int x = 0; x < p->width; x++)
        for (int b = 0; b < p->block; b++)
          out[x * p->block + b] = b < n ? in[b * p->channels * pixels + x] : 0;
    }
}

static void store(const step *p, const float *ws, float *images, int n) {
  int64_t pixels = (int64_t)p->height * p->width;
  for (int c = 0; c < p->channels; c++)
    for (int y = 0; y < p->height; y++) {
      const float *in = ws + p->in + c * p->in_plane + (int64_t)y * p->in_pitch * p->block;
      float *out = images + c * pixels + (int64_t)y * p->width;
      for (int b = 0; b < n; b++)
        for (int x = 0; x < p->width; x++) out[b * p->channels * pixels + x] = in[x * p->block + b];
    }
}

int32_t vector_length(void) { return VL; }

void run(const step *steps, int32_t count, float *workspace, float *const *io, int32_t images) {
  for (const step *p = steps; p < steps + count; p++) switch (p->kind) {
    case CONV: convolve(p, workspace); break;
    case DENSE: convolve_densely(p, workspace); break;
    case AFFINE: affine(p, workspace); break;
    case POOL: pool(p, workspace); break;
    case GATHER: gather(p, workspace); break;
    case LOAD: load(p, workspace, io[p->io], images); break;
    case STORE: store(p, workspace, io[p->io], images); break;
  }
}
