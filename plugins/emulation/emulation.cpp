/* Runs the kernels on the host, for tests: every thread of a block is a fiber, which runs until it waits for others. The
 * order in which the fibers go on can be chosen, so that a missing barrier shows as a wrong result. Blocks run one after the
 * other. Compiles into a library with the interface of gfl_kernels.h on host memory, and with the functions below.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <functional>
#include <mutex>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include "../src/gfl_kernels.cu"

#ifdef __SANITIZE_ADDRESS__
#define GFL_SWAPCONTEXT 1 /* the sanitizer follows swapcontext to another stack, but not longjmp */
#else
#define GFL_SWAPCONTEXT 0
#endif

extern "C" char __start_gfl_shared[], __stop_gfl_shared[]; /* the linker's bounds of the section of shared memory */

namespace gfl_emulation {

Counts counts;
void *dynamic_shared;
dim3 thread_index, block_index, block_size, grid_size;

namespace {

constexpr size_t kStackSize = 128 << 10;
constexpr size_t kMostShared = 48 << 10; /* what every GPU gives without asking */
constexpr unsigned kMostThreads = 1024;

enum Order { FORWARD, REVERSE, RANDOM };
enum State { READY, WAITS_FOR_WARP, WAITS_FOR_BLOCK, DONE };

struct Fiber {
    dim3 index;
    State state;
    bool started;
    jmp_buf jump;
    ucontext_t context;
    void *stack;
};

struct Warp {
    unsigned arrived, running;
    WarpOperation operation;
    unsigned brought[32], all[32];
};

std::mutex one_launch; /* everything below is of the launch that runs */
std::vector<Fiber> fibers;
std::vector<Warp> warps;
unsigned current, threads, running, arrived;
bool brought_any, all_any;
std::function<void()> kernel_call;
jmp_buf scheduler_jump;
#if GFL_SWAPCONTEXT
ucontext_t scheduler_context;
#endif
const char *fault; /* what a kernel did that a GPU would not allow */
char last_fault[256] = "";
Order order = FORWARD;
std::mt19937_64 random_bits;
int launches_until_failure = -1;
cudaError_t failure = cudaSuccess;

void back_to_scheduler() {
#if GFL_SWAPCONTEXT
    swapcontext(&fibers[current].context, &scheduler_context);
#else
    if (!_setjmp(fibers[current].jump)) _longjmp(scheduler_jump, 1);
#endif
}

void release_warp(Warp &warp, unsigned first) {
    if (warp.arrived == 0 || warp.arrived < warp.running) return;
    warp.arrived = 0;
    memcpy(warp.all, warp.brought, sizeof warp.all);
    for (unsigned i = first; i < first + 32 && i < threads; ++i)
        if (fibers[i].state == WAITS_FOR_WARP) fibers[i].state = READY;
}

void release_block() {
    if (arrived == 0 || arrived < running) return;
    arrived = 0;
    all_any = brought_any;
    brought_any = false;
    for (unsigned i = 0; i < threads; ++i)
        if (fibers[i].state == WAITS_FOR_BLOCK) fibers[i].state = READY;
}

/* A fiber is used again for the next block's thread of the same number. */
void fiber_main() {
    for (;;) {
        kernel_call();
        const unsigned self = current;
        fibers[self].state = DONE;
        --running;
        --warps[self / 32].running;
        release_warp(warps[self / 32], self / 32 * 32);
        release_block();
        back_to_scheduler();
    }
}

void resume(unsigned thread) {
    current = thread;
    thread_index = fibers[thread].index;
    Fiber &fiber = fibers[thread];
#if GFL_SWAPCONTEXT
    swapcontext(&scheduler_context, &fiber.context);
#else
    if (_setjmp(scheduler_jump)) return;
    if (fiber.started) _longjmp(fiber.jump, 1);
    fiber.started = true;
    setcontext(&fiber.context);
#endif
}

void free_fibers() {
    for (Fiber &fiber : fibers) munmap(fiber.stack, kStackSize);
    fibers.clear();
}

void make_fibers(unsigned number) {
    if (fibers.size() >= number) return;
    free_fibers(); /* contexts must not move once they are made */
    fibers.resize(number);
    for (Fiber &fiber : fibers) {
        fiber.started = false;
        fiber.stack = mmap(nullptr, kStackSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack;
        fiber.context.uc_stack.ss_size = kStackSize;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, fiber_main, 0);
    }
}

void spoil_shared_memory(std::vector<unsigned char> &dynamic) {
    memset(__start_gfl_shared, (int)random_bits(), __stop_gfl_shared - __start_gfl_shared);
    if (!dynamic.empty()) memset(dynamic.data(), (int)random_bits(), dynamic.size());
}

/* Lets every lane of a warp that can go on do so once, until it waits; returns whether any did. */
bool step_warp(unsigned warp) {
    const unsigned turn = order == RANDOM ? random_bits() % 32 : order == REVERSE ? 31 : 0;
    bool went_on = false;
    for (unsigned i = 0; i < 32 && !fault; ++i) {
        const unsigned thread = warp * 32 + (i ^ turn);
        if (thread >= threads || fibers[thread].state != READY) continue;
        went_on = true;
        resume(thread);
    }
    return went_on;
}

/* Returns whether every thread came to its end. A warp goes on as far as it can before the next one starts, so that it runs
 * ahead of the others where a barrier is missing; in random order it may also be left behind at any of its own waits. */
bool run_block(std::vector<unsigned> &sequence) {
    running = threads;
    arrived = 0;
    brought_any = false;
    for (unsigned i = 0; i < threads; ++i) fibers[i].state = READY;
    for (unsigned i = 0; i < warps.size(); ++i)
        warps[i] = {0, threads - 32 * i < 32 ? threads - 32 * i : 32, SYNC, {}, {}};
    while (running) {
        if (order == RANDOM)
            for (size_t i = sequence.size() - 1; i > 0; --i) std::swap(sequence[i], sequence[random_bits() % (i + 1)]);
        bool went_on = false;
        for (unsigned warp : sequence)
            while (step_warp(warp)) {
                went_on = true;
                if (order == RANDOM && random_bits() % 4 == 0) break;
            }
        if (!went_on && !fault) fault = "threads wait for each other: a barrier or warp operation that not all of them reach";
        if (fault) return false;
    }
    return true;
}

cudaError_t run_grid(dim3 grid, dim3 block, size_t shared_size) {
    threads = block.x * block.y * block.z;
    if (threads == 0 || threads > kMostThreads || !grid.x || !grid.y || !grid.z || shared_size > kMostShared) {
        snprintf(last_fault, sizeof last_fault, "a grid of %u x %u blocks of %u threads with %zu bytes is not possible",
                 grid.x, grid.y, threads, shared_size);
        return cudaErrorInvalidValue;
    }
    make_fibers(threads);
    warps.resize((threads + 31) / 32);
    std::vector<unsigned char> dynamic(shared_size);
    std::vector<unsigned> sequence(warps.size()); /* of warps */
    dynamic_shared = dynamic.data();
    grid_size = grid;
    block_size = block;
    fault = nullptr;
    for (unsigned i = 0; i < threads; ++i)
        fibers[i].index = dim3(i % block.x, i / block.x % block.y, i / block.x / block.y);
    for (unsigned i = 0; i < warps.size(); ++i) sequence[i] = order == REVERSE ? warps.size() - 1 - i : i;
    for (block_index.z = 0; block_index.z < grid.z; ++block_index.z)
        for (block_index.y = 0; block_index.y < grid.y; ++block_index.y)
            for (block_index.x = 0; block_index.x < grid.x; ++block_index.x) {
                spoil_shared_memory(dynamic);
                if (run_block(sequence)) continue;
                snprintf(last_fault, sizeof last_fault, "%s", fault);
                free_fibers(); /* some are in the middle of a kernel */
                return cudaErrorLaunchFailure;
            }
    return cudaSuccess;
}

struct Kernel {
    const char *name;
    const void *function;
    void (*call)(void **arguments);
};

template <typename... Parameters, size_t... indices>
void call_with(void (*kernel)(Parameters...), void **arguments, std::index_sequence<indices...>) {
    kernel(*static_cast<std::remove_const_t<Parameters> *>(arguments[indices])...);
}

template <typename... Parameters>
void call_kernel(void (*kernel)(Parameters...), void **arguments) {
    call_with(kernel, arguments, std::index_sequence_for<Parameters...>());
}

#define GFL_KERNEL(name) \
    {#name, (const void *)name, [](void **arguments) { call_kernel(name, arguments); }}
const Kernel kernels[] = {GFL_KERNEL(gfl_filter_kernel), GFL_KERNEL(gfl_select_kernel), GFL_KERNEL(gfl_merge_kernel),
                          GFL_KERNEL(gfl_nms_kernel), GFL_KERNEL(gfl_resize_kernel)};

cudaError_t launch_kernel(const Kernel &kernel, dim3 grid, dim3 block, void **arguments, size_t shared_size) {
    std::lock_guard<std::mutex> lock(one_launch);
    kernel_call = [&] { kernel.call(arguments); };
    return run_grid(grid, block, shared_size);
}

/* Whether the call that begins now is the one that was chosen to fail. */
bool fails_now() { return launches_until_failure >= 0 && launches_until_failure-- == 0; }

}  // namespace

unsigned lane() { return current % 32; }

void wait_for_block() { any_of_block(false); }

bool any_of_block(bool own) {
    brought_any |= own;
    ++arrived;
    fibers[current].state = WAITS_FOR_BLOCK;
    release_block();
    back_to_scheduler();
    return all_any;
}

const unsigned *exchange(WarpOperation operation, unsigned mask, unsigned own) {
    const unsigned self = current;
    Warp &warp = warps[self / 32];
    if (mask != 0xffffffffu || warp.running != 32) fault = "a warp operation without all 32 lanes";
    if (warp.arrived && warp.operation != operation) fault = "lanes of a warp meet at different operations";
    warp.operation = operation;
    warp.brought[self % 32] = own;
    ++warp.arrived;
    fibers[self].state = WAITS_FOR_WARP;
    release_warp(warp, self / 32 * 32);
    back_to_scheduler();
    return warp.all;
}

}  // namespace gfl_emulation

using namespace gfl_emulation;

const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorInvalidDeviceFunction: return "invalid device function";
        case cudaErrorNoKernelImageForDevice: return "no kernel image is available for execution on the device";
        default: return "unspecified launch failure";
    }
}

cudaError_t cudaMemsetAsync(void *target, int value, size_t size, cudaStream_t) {
    if (fails_now()) return failure;
    memset(target, value, size);
    return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared_size,
                             cudaStream_t) {
    if (fails_now()) return failure;
    for (const Kernel &kernel : kernels)
        if (kernel.function == function) return launch_kernel(kernel, grid, block, arguments, shared_size);
    return cudaErrorInvalidDeviceFunction;
}

/* Run one kernel, as cuLaunchKernel would: `arguments` points to a pointer to each argument. Returns a cudaError_t. */
extern "C" int gfl_emulate_launch(const char *name, const unsigned grid[3], const unsigned block[3], size_t shared_size,
                                  void **arguments) {
    for (const Kernel &kernel : kernels)
        if (strcmp(kernel.name, name) == 0)
            return launch_kernel(kernel, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), arguments,
                                 shared_size);
    snprintf(last_fault, sizeof last_fault, "there is no kernel %s", name);
    return cudaErrorInvalidDeviceFunction;
}

/* In which order threads go on from now on: 0 forward, 1 reverse, 2 random by the seed. */
extern "C" void gfl_emulate_order(int new_order, unsigned long long seed) {
    order = static_cast<Order>(new_order);
    random_bits.seed(seed);
}

/* Let the call to CUDA after the next `number` ones fail with `error`. */
extern "C" void gfl_emulate_failure(int number, int error) {
    launches_until_failure = number;
    failure = static_cast<cudaError_t>(error);
}

/* What was wrong with the last launch that failed. */
extern "C" const char *gfl_emulate_fault(void) { return last_fault; }

extern "C" void gfl_emulate_reset_counts(void) { counts = {}; }

/* Copies the Counts, each 8 bytes, in the order of their declaration. */
extern "C" void gfl_emulate_counts(uint64_t *into) { memcpy(into, &counts, sizeof counts); }
