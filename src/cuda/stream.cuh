// Weights on their way from memory to one warp: a ring of steps in shared memory that the warp fills for itself, far
// ahead of what it multiplies, across the stages of a program. Weights depend on nothing, so neither barriers between
// stages nor the work between products stop the reading.
#pragma once

#include "cuda/program.h"

namespace upg::cuda {

constexpr uint32_t kSchedulers = 4;  // of a multiprocessor

/// The steps of one product that fall to a block, and of these to a warp: contiguous in units of (panel, slice).
struct Share {
  uint32_t slice;
  uint32_t slice_begin, slice_end;  // steps of the block's slice of columns
  uint32_t panel_begin, panel_end;
  uint32_t begin, end;  // the warp's, counted through the block's panels
  __device__ uint32_t slice_steps() const { return slice_end - slice_begin; }
};

// Where a warp begins among so many steps of its block; the next warp begins where it ends.
__device__ inline uint32_t begin_of_warp(uint32_t steps, uint32_t warp) { return steps * warp / kWarps; }

// Without divisions or loops: every stage begins with this.
__device__ inline Share share_of(const Deal& deal, uint32_t block, uint32_t warp) {
  static_assert(kMostSlices == 2);
  Share s{};
  s.slice = block >= deal.blocks_of_slice ? 1 : 0;
  block -= s.slice * deal.blocks_of_slice;
  s.slice_begin = deal.steps.begin(s.slice);
  s.slice_end = deal.steps.begin(s.slice + 1);
  s.panel_begin = deal.panels.begin(block);
  s.panel_end = deal.panels.begin(block + 1);
  if (s.slice >= deal.slices || block >= deal.blocks_of_slice) {  // a block without work
    s.slice_end = s.slice_begin;
    s.panel_end = s.panel_begin;
  }
  const uint32_t total = (s.panel_end - s.panel_begin) * s.slice_steps();
  s.begin = begin_of_warp(total, warp);
  s.end = begin_of_warp(total, warp + 1);
  return s;
}

/// What a block reads of a product.
struct alignas(16) BlockReading {
  const uint8_t* data;
  uint32_t steps;        // of all its panels
  uint32_t slice_steps;  // of each
  uint32_t inverse;      // inverse_of() that
  uint32_t panel_bytes;  // from one to the next
  uint32_t bits;
};
__device__ inline BlockReading block_reading(const Reading& r, uint32_t block) {
  const Share share = share_of(r.deal, block, 0);
  const uint32_t bytes = step_bytes(r.bits), panel_bytes = r.steps * bytes, n = share.slice_steps();
  return {r.data + (static_cast<uint64_t>(share.panel_begin) * panel_bytes + share.slice_begin * bytes),
          (share.panel_end - share.panel_begin) * n,
          n,
          inverse_of(n),
          panel_bytes,
          r.bits};
}

// What is the same in all lanes of a warp, all of which come here, in a way that the compiler sees it: such numbers
// have registers and instructions of their own.
__device__ inline uint32_t uniform(uint32_t x) { return __shfl_sync(0xffffffffu, x, 0); }
__device__ inline uint64_t uniform(const void* p) {
  const auto x = reinterpret_cast<uint64_t>(p);
  return static_cast<uint64_t>(uniform(static_cast<uint32_t>(x >> 32))) << 32 | uniform(static_cast<uint32_t>(x));
}

// Which of a block's shares is this warp's. The larger shares are spread evenly among all; a scheduler, which has every
// fourth warp, gets neighbours, so that it has as many of them as the others.
__device__ inline uint32_t share_of_warp() {
  const uint32_t warp = uniform(threadIdx.x / 32);
  return warp % kSchedulers * (kWarps / kSchedulers) + warp / kSchedulers;
}

__device__ inline uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

#if __CUDA_ARCH__ >= 900
__device__ inline void barrier_init(uint64_t* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
}
// After barriers were made: copies see them.
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// Barriers and where copies go are shared_address()es.
__device__ inline void expect_bytes(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ inline void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}
// The same of weights. They are read once a token, and all of them are more than the cache holds: they should be the
// first to leave it, not instructions and activations. A token takes 3% longer without that.
__device__ inline void copy_weights(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}
// True in one lane of a warp.
__device__ inline bool elected() {
  uint32_t is;
  asm volatile(
      "{\n"
      ".reg .pred chosen;\n"
      "elect.sync _|chosen, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, chosen;\n"
      "}\n"
      : "=r"(is));
  return is != 0;
}
__device__ inline void barrier_wait(uint32_t barrier, uint32_t phase) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(barrier),
      "r"(phase)
      : "memory");
}
#endif

// All lanes of a warp do the same with it, and together.
class WeightStream {
 public:
  /// `ring` [slots][slot_bytes] and `barriers` [slots] belong to this warp alone; `readings` [count] are in shared
  /// memory. `warp` and all the others are uniform().
  __device__ WeightStream(const BlockReading* readings, uint32_t count, uint32_t warp, uint8_t* ring,
                          uint64_t* barriers, uint32_t slots, uint32_t slot_bytes)
      : readings_(readings),
        count_(count),
        warp_(warp),
        ring_(shared_address(ring)),
        place_(ring_),
        barriers_(shared_address(barriers)),
        full_(barriers_),
        last_(barriers_ + 8 * (slots - 1)),
        slot_bytes_(slot_bytes) {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x % 32 == 0) {
      for (uint32_t i = 0; i < slots; ++i) barrier_init(barriers + i);
      publish_barriers();
    }
    __syncwarp();
#endif
    for (uint32_t i = 0; i < slots; ++i) fill(ring_ + i * slot_bytes, barriers_ + 8 * i);
  }

  /// The next unit of this warp, in order: unit_steps(), or what the panel or the share has left.
  __device__ const uint8_t* front() {
#if __CUDA_ARCH__ >= 900
    barrier_wait(full_, phase_);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(kFallbackSlots - 1) : "memory");
    __syncwarp();
#endif
    return static_cast<const uint8_t*>(__cvta_shared_to_generic(place_));
  }
  /// Done with it: its place is filled again, where there is something to fill it with.
  __device__ void pop() {
    __syncwarp();
    fill(place_, full_);
    const bool last = full_ == last_;
    place_ = last ? ring_ : place_ + slot_bytes_;
    full_ = last ? barriers_ : full_ + 8;
    phase_ ^= last ? 1 : 0;
  }

  static constexpr uint32_t kFallbackSlots = 2;

 private:
  // Asks for the next unit, of products to come too. Once there is none, there will be none.
  __device__ void fill(uint32_t place, uint32_t full) {
    if (run_ != 0 || next_run()) put(place, full);
#if __CUDA_ARCH__ >= 800 && __CUDA_ARCH__ < 900
    asm volatile("cp.async.commit_group;" ::: "memory");  // groups are counted
#elif __CUDA_ARCH__ < 800
    __syncwarp();
#endif
  }
  __device__ bool next_run() {
    if (left_ != 0) {
      at_ += panel_gap_;
      run_ = min(slice_bytes_, left_);
      left_ -= run_;
      return true;
    }
    while (next_ != count_) {
      open(readings_[next_++]);
      if (run_ != 0) return true;
    }
    return false;
  }
  __device__ void open(const BlockReading& reading) {
    const BlockReading r = reading;
    const uint32_t steps = uniform(r.steps), n = uniform(r.slice_steps);
    const uint32_t bits = uniform(r.bits), bytes = step_bytes(bits);
    const uint32_t begin = begin_of_warp(steps, warp_), all = begin_of_warp(steps, warp_ + 1) - begin;
    if (all == 0) return;
    const Quotient panel = divide(begin, n, uniform(r.inverse));
    const uint32_t panel_bytes = uniform(r.panel_bytes), now = min(n - panel.rest, all);
    at_ = uniform(r.data) + (static_cast<uint64_t>(panel.whole) * panel_bytes + panel.rest * bytes);
    run_ = now * bytes;
    left_ = (all - now) * bytes;
    unit_bytes_ = unit_steps(slot_bytes_, bits) * bytes;
    slice_bytes_ = n * bytes;
    panel_gap_ = panel_bytes - slice_bytes_;
  }
  // Asks for one unit, of which there is one.
  __device__ void put(uint32_t to, [[maybe_unused]] uint32_t full) {
    const uint32_t bytes = min(run_, unit_bytes_);
    const auto* from = reinterpret_cast<const uint8_t*>(at_);
#if __CUDA_ARCH__ >= 900
    if (elected()) {
      expect_bytes(full, bytes);
      copy_weights(to, from, bytes, full);
    }
#else
    for (uint32_t i = threadIdx.x % 32 * 16; i < bytes; i += 512) {
#if __CUDA_ARCH__ >= 800
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + i), "l"(from + i) : "memory");
#else
      *static_cast<uint4*>(__cvta_shared_to_generic(to + i)) = *reinterpret_cast<const uint4*>(from + i);
#endif
    }
#endif
    at_ += bytes;
    run_ -= bytes;
  }

  const BlockReading* readings_;
  uint32_t next_ = 0, count_;
  uint32_t warp_;
  uint32_t ring_, place_;            // shared_address()es: the slot that is read next
  uint32_t barriers_, full_, last_;  // and its barrier, which says that it is full
  uint32_t slot_bytes_;
  uint32_t phase_ = 0;
  uint64_t at_ = 0;
  uint32_t run_ = 0, left_ = 0;  // bytes of the share from there to the panel's end; after that
  uint32_t unit_bytes_ = 0, slice_bytes_ = 0, panel_gap_ = 0;
};

}  // namespace upg::cuda
