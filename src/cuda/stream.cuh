// Weights on their way from memory to one warp: a ring of steps in shared memory that the warp fills for itself, far
// ahead of what it multiplies, across the stages of a program. Weights depend on nothing, so neither barriers between
// stages nor the work between products stop the reading.
#pragma once

#include "cuda/program.h"

namespace upg::cuda {

/// The steps of one product that fall to a block, and of these to a warp: contiguous in units of (panel, slice).
struct Share {
  uint32_t slice;
  uint32_t slice_begin, slice_end;  // steps of the block's slice of columns
  uint32_t panel_begin, panel_end;
  uint32_t begin, end;  // the warp's, counted through the block's panels
  __device__ uint32_t slice_steps() const { return slice_end - slice_begin; }
};

// Without divisions: every stage begins with this.
__device__ inline Share share_of(const Deal& deal, uint32_t block, uint32_t warp) {
  Share s{};
  while (block >= deal.blocks_of_slice && s.slice < deal.slices) {
    block -= deal.blocks_of_slice;
    ++s.slice;
  }
  if (s.slice == deal.slices) return s;
  s.slice_begin = deal.steps.begin(s.slice);
  s.slice_end = deal.steps.begin(s.slice + 1);
  s.panel_begin = deal.panels.begin(block);
  s.panel_end = deal.panels.begin(block + 1);
  const uint32_t total = (s.panel_end - s.panel_begin) * s.slice_steps();
  s.begin = total * warp / kWarps;
  s.end = total * (warp + 1) / kWarps;
  return s;
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
// Weights are read once a token, and all of them are more than the cache holds: they should be the first to leave it,
// not instructions and activations. A token takes 3% longer without that.
__device__ inline uint64_t read_once() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ inline void expect_bytes(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
__device__ inline void copy_bulk(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier)), "l"(read_once())
      : "memory");
}
__device__ inline void barrier_wait(uint64_t* barrier, uint32_t phase) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(phase)
      : "memory");
}
#endif

class WeightStream {
 public:
  /// `ring` [slots][slot_bytes] and `barriers` [slots] belong to this warp alone; `readings` up to `end` are in shared
  /// memory.
  __device__ WeightStream(const Reading* readings, const Reading* end, uint8_t* ring, uint64_t* barriers,
                          uint32_t slots, uint32_t slot_bytes)
      : next_(readings), end_(end), ring_(ring), barriers_(barriers), slots_(slots), slot_bytes_(slot_bytes) {
    lane_ = threadIdx.x % 32;
    free_ = slots;
#if __CUDA_ARCH__ >= 900
    if (lane_ == 0) {
      for (uint32_t i = 0; i < slots; ++i) barrier_init(barriers + i);
      publish_barriers();
    }
    __syncwarp();
#endif
    more();
#if __CUDA_ARCH__ < 900
    for (; free_ > 0; --free_) advance();  // groups of copies are counted
#endif
  }

  /// Asks for weights, of products to come too, as long as there is room.
  __device__ void more() {
    while (free_ > 0) {
      if (left_ != 0) {
        put();
      } else {
        if (next_ == end_) return;
        open(*next_++);
      }
    }
  }

  /// The next unit of this warp, in order: kUnitSteps steps, or what the panel or the share has left.
  __device__ const uint8_t* front() {
#if __CUDA_ARCH__ >= 900
    barrier_wait(barriers_ + read_slot_, read_phase_);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(kFallbackSlots - 1) : "memory");
    __syncwarp();
#endif
    return ring_ + read_slot_ * slot_bytes_;
  }
  /// Done with it: its place is filled again, where there is something to fill it with.
  __device__ void pop() {
    __syncwarp();
    if (++read_slot_ == slots_) {
      read_slot_ = 0;
      read_phase_ ^= 1;
    }
    ++free_;
    if (left_ != 0) {
      put();
    } else {
      more();
#if __CUDA_ARCH__ < 900
      if (free_ > 0) {
        advance();
        --free_;
      }
#endif
    }
  }

  static constexpr uint32_t kFallbackSlots = 2;

 private:
  __device__ void open(const Reading& r) {
    const Share share = share_of(r.deal, blockIdx.x, threadIdx.x / 32);
    left_ = share.end - share.begin;
    if (left_ == 0) return;
    const uint32_t n = share.slice_steps(), panel = share.begin / n, in_panel = share.begin - panel * n;
    bytes_ = step_bytes(r.bits);
    in_panel_ = n - in_panel;
    panel_gap_ = (r.steps - n) * bytes_;
    slice_steps_ = n;
    at_ = r.data + (static_cast<uint64_t>(share.panel_begin + panel) * r.steps + share.slice_begin + in_panel) * bytes_;
  }
  // Asks for one unit; neither left_ nor free_ is 0.
  __device__ void put() {
    const uint32_t steps = min(min(in_panel_, left_), kUnitSteps), bytes = steps * bytes_;
    uint8_t* to = ring_ + write_slot_ * slot_bytes_;
#if __CUDA_ARCH__ >= 900
    if (lane_ == 0) {
      expect_bytes(barriers_ + write_slot_, bytes);
      copy_bulk(to, at_, bytes, barriers_ + write_slot_);
    }
#else
    for (uint32_t i = 16 * lane_; i < bytes; i += 512) {
#if __CUDA_ARCH__ >= 800
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to + i)), "l"(at_ + i) : "memory");
#else
      *reinterpret_cast<uint4*>(to + i) = *reinterpret_cast<const uint4*>(at_ + i);
#endif
    }
#endif
    at_ += bytes;
    in_panel_ -= steps;
    if (in_panel_ == 0) {
      in_panel_ = slice_steps_;
      at_ += panel_gap_;
    }
    left_ -= steps;
    --free_;
    advance();
  }
  __device__ void advance() {
#if __CUDA_ARCH__ >= 800 && __CUDA_ARCH__ < 900
    asm volatile("cp.async.commit_group;" ::: "memory");
#elif __CUDA_ARCH__ < 800
    __syncwarp();
#endif
    if (++write_slot_ == slots_) write_slot_ = 0;
  }

  const Reading *next_, *end_;
  uint8_t* ring_;
  uint64_t* barriers_;
  uint32_t slots_, slot_bytes_;
  uint32_t lane_;
  uint32_t free_;  // slots that are to be filled
  uint32_t write_slot_ = 0, read_slot_ = 0, read_phase_ = 0;
  const uint8_t* at_ = nullptr;
  uint32_t panel_gap_ = 0, bytes_ = 0, left_ = 0, in_panel_ = 0, slice_steps_ = 1;
};

}  // namespace upg::cuda
