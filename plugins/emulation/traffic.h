/* What a launch does to memory, warp by warp, for builds with -fsanitize=thread: the compiler calls a function before every
 * access, and the functions of that name here count instead of looking for races. Needs nothing in the kernels' source.
 *
 * Lanes of a warp are taken to run in lockstep: their n-th accesses at the same place of the code, between two waits of the
 * warp, are one access of the warp. Of global memory it costs a transaction per 32 bytes touched, of shared memory as many as
 * the fullest of 32 banks has different words. A step is an access, a vote, a shuffle, a barrier or an IoU of a warp; the
 * steps of a block are those of its slowest warp from barrier to barrier.
 */
#ifndef GFL_TRAFFIC_H
#define GFL_TRAFFIC_H

#include <stdint.h>

#include <algorithm>
#include <vector>

namespace gfl_emulation {

enum Place { SHARED, GLOBAL, COUNTED };

struct Access {
    uintptr_t code;
    unsigned occurrence, lane, size;
    Place place;
    uintptr_t address;
};

/* Of a block, or of one of its warps. */
struct Traffic {
    uint64_t steps, shared, global;
};

/* The accesses of a warp since it last waited. */
class WarpTraffic {
   public:
    void add(uintptr_t code, unsigned lane, Place place, uintptr_t address, unsigned size) {
        if (continues(code, lane, place, address, size)) {
            accesses_[last_[lane]].size += size;
            last_code_[lane] = code;
            return;
        }
        last_[lane] = accesses_.size();
        last_code_[lane] = code;
        accesses_.push_back({code, nth(code, lane), lane, size, place, address});
    }

    /* Their cost; forgets them. */
    Traffic take() {
        Traffic sum = {};
        std::sort(accesses_.begin(), accesses_.end(), [](const Access &a, const Access &b) {
            return a.code != b.code ? a.code < b.code : a.occurrence < b.occurrence;
        });
        for (size_t begin = 0, end; begin < accesses_.size(); begin = end) {
            for (end = begin; end < accesses_.size() && accesses_[end].code == accesses_[begin].code &&
                              accesses_[end].occurrence == accesses_[begin].occurrence;)
                ++end;
            ++sum.steps;
            if (accesses_[begin].place == GLOBAL) sum.global += different(begin, end, 32);
            if (accesses_[begin].place == SHARED) sum.shared += fullest_bank(begin, end);
        }
        accesses_.clear();
        seen_.clear();
        return sum;
    }

   private:
    /* Words of 16 bytes that the host's compiler took apart, as no loop does, are one access of a GPU. */
    bool continues(uintptr_t code, unsigned lane, Place place, uintptr_t address, unsigned size) const {
        if (size != 4 || last_[lane] >= accesses_.size() || last_code_[lane] == code) return false;
        const Access &last = accesses_[last_[lane]];
        return last.lane == lane && last.place == place && last.address + last.size == address && address % 16 != 0 &&
               last.size % 4 == 0 && last.address / 16 == address / 16;
    }

    /* How often a lane came by a place of the code before. */
    unsigned nth(uintptr_t code, unsigned lane) {
        for (Seen &seen : seen_)
            if (seen.code == code) return seen.times[lane]++;
        seen_.push_back({code, {}});
        seen_.back().times[lane] = 1;
        return 0;
    }

    /* The different units of `bytes` bytes that accesses touch. */
    size_t different(size_t begin, size_t end, uintptr_t bytes) {
        touched_.clear();
        for (size_t i = begin; i < end; ++i)
            for (uintptr_t unit = accesses_[i].address / bytes; unit * bytes < accesses_[i].address + accesses_[i].size; ++unit)
                touched_.push_back(unit);
        std::sort(touched_.begin(), touched_.end());
        touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
        return touched_.size();
    }

    size_t fullest_bank(size_t begin, size_t end) {
        size_t banks[32] = {};
        different(begin, end, 4);
        for (uintptr_t word : touched_) ++banks[word % 32];
        return *std::max_element(banks, banks + 32);
    }

    struct Seen {
        uintptr_t code;
        unsigned times[32];
    };
    std::vector<Access> accesses_;
    std::vector<Seen> seen_;
    std::vector<uintptr_t> touched_;
    size_t last_[32] = {}; /* a lane's last access */
    uintptr_t last_code_[32] = {};
};

}  // namespace gfl_emulation

#endif
