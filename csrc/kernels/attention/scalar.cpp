#include "kernels/attention/contract.h"

#include "kernels/encoder_math.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

inline float widened(float value) { return value; }
inline float widened(uint16_t half) { return of_half(half); }
inline void narrow(float value, float* place) { *place = value; }
inline void narrow(float value, uint16_t* place) { *place = half_of(value); }

template <typename Value>
void one_row(const AttentionJob<Value>& job, size_t head, size_t token) {
  const size_t at = head * job.head_dim;
  const Value* const query = job.qkv + token * job.stride + at;
  float* const weight = static_cast<float*>(job.scratch);
  float most = 0.0f;
  for (size_t j = 0; j < job.tokens; ++j) {
    const Value* const key = job.qkv + j * job.stride + job.keys + at;
    float score = 0.0f;
    for (size_t d = 0; d < job.head_dim; ++d) score += widened(query[d]) * widened(key[d]);
    weight[j] = score;
    if (j == 0 || score > most) most = score;
  }
  float total = 0.0f;
  for (size_t j = 0; j < job.tokens; ++j) {
    const float p = exp2_of(weight[j] - most);
    Value rounded;
    narrow(p, &rounded);
    weight[j] = widened(rounded);
    total += weight[j];
  }
  for (size_t d = 0; d < job.head_dim; ++d) {
    float sum = 0.0f;
    for (size_t j = 0; j < job.tokens; ++j) sum += weight[j] * widened(job.qkv[j * job.stride + job.values + at + d]);
    narrow(sum / total, job.out + token * job.out_stride + at + d);
  }
}

template <typename Value>
void run(const AttentionJob<Value>* job) {
  for (size_t head = 0; head < job->heads; ++head) {
    for (size_t token = 0; token < job->tokens; ++token) one_row(*job, head, token);
  }
}

size_t scratch_bytes(size_t tokens, size_t) { return tokens * sizeof(float); }

}  // namespace

const AttentionBf16 attention_bf16_scalar = {run<uint16_t>, scratch_bytes, target};
const AttentionF32 attention_f32_scalar = {run<float>, scratch_bytes, target};

}  // namespace nf::kernels
