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
#include "traffic.h"

#ifdef __SANITIZE_ADDRESS__
#define GFL_SWAPCONTEXT 1 /* the sanitizer follows swapcontext to another stack, but not longjmp */
#else
#define GFL_SWAPCONTEXT 0
#endif

/* The linker's bounds of the section of shared memory, and of this library */
extern "C" char __start_gfl_shared[], __stop_gfl_shared[];
extern "C" __attribute__((visibility("hidden"))) char __ehdr_start[], _end[];

namespace gfl_emulation {

Work work;
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
Warp warps[kMostThreads / 32]; /* static, as what lanes read of each other is no memory of a GPU's */
unsigned warp_count, current, threads, running, arrived;
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

/* Counted only in builds with GFL_TRAFFIC */
bool in_kernel; /* and not in the emulation that it calls */
std::vector<WarpTraffic> warp_traffic;
std::vector<uint64_t> clocks; /* steps of each warp of the block that runs */
Traffic block_traffic;

void settle_warp(unsigned warp) {
    const Traffic since = warp_traffic[warp].take();
    clocks[warp] += since.steps;
    block_traffic.shared += since.shared;
    block_traffic.global += since.global;
}

void settle_block() {
    for (unsigned i = 0; i < warp_count; ++i) settle_warp(i);
    block_traffic.steps = *std::max_element(clocks.begin(), clocks.end());
    std::fill(clocks.begin(), clocks.end(), block_traffic.steps + 1); /* where a barrier ends */
}

void add_block_to_work() {
    settle_block();
    ++work.blocks;
    work.shared += block_traffic.shared;
    work.global += block_traffic.global;
    work.block_steps = std::max(work.block_steps, block_traffic.steps);
    work.block_shared = std::max(work.block_shared, block_traffic.shared);
    work.block_global = std::max(work.block_global, block_traffic.global);
}

void begin_block_traffic() {
    block_traffic = {};
    clocks.assign(warp_count, 0);
    warp_traffic.resize(warp_count);
}

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
    settle_warp(first / 32);
    ++clocks[first / 32];
    memcpy(warp.all, warp.brought, sizeof warp.all);
    for (unsigned i = first; i < first + 32 && i < threads; ++i)
        if (fibers[i].state == WAITS_FOR_WARP) fibers[i].state = READY;
}

void release_block() {
    if (arrived == 0 || arrived < running) return;
    arrived = 0;
    settle_block();
    all_any = brought_any;
    brought_any = false;
    for (unsigned i = 0; i < threads; ++i)
        if (fibers[i].state == WAITS_FOR_BLOCK) fibers[i].state = READY;
}

/* A fiber is used again for the next block's thread of the same number. */
void fiber_main() {
    for (;;) {
        kernel_call();
        in_kernel = false;
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

void spoil_shared_memory() { memset(__start_gfl_shared, (int)random_bits(), __stop_gfl_shared - __start_gfl_shared); }

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
    for (unsigned i = 0; i < warp_count; ++i)
        warps[i] = {0, threads - 32 * i < 32 ? threads - 32 * i : 32, SYNC, {}, {}};
    begin_block_traffic();
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
    add_block_to_work();
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
    warp_count = (threads + 31) / 32;
    std::vector<unsigned> sequence(warp_count); /* of warps */
    grid_size = grid;
    block_size = block;
    fault = nullptr;
    for (unsigned i = 0; i < threads; ++i)
        fibers[i].index = dim3(i % block.x, i / block.x % block.y, i / block.x / block.y);
    for (unsigned i = 0; i < warp_count; ++i) sequence[i] = order == REVERSE ? warp_count - 1 - i : i;
    for (block_index.z = 0; block_index.z < grid.z; ++block_index.z)
        for (block_index.y = 0; block_index.y < grid.y; ++block_index.y)
            for (block_index.x = 0; block_index.x < grid.x; ++block_index.x) {
                spoil_shared_memory();
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
    Work work; /* since gfl_emulate_reset_work */
};

template <typename... Parameters, size_t... indices>
GFL_UNCOUNTED void call_with(void (*kernel)(Parameters...), void **arguments, std::index_sequence<indices...>) {
    in_kernel = true;
    kernel(*static_cast<std::remove_const_t<Parameters> *>(arguments[indices])...);
}

template <typename... Parameters>
void call_kernel(void (*kernel)(Parameters...), void **arguments) {
    call_with(kernel, arguments, std::index_sequence_for<Parameters...>());
}

#define GFL_KERNEL(name) \
    {#name, (const void *)name, [](void **arguments) { call_kernel(name, arguments); }, {}}
Kernel kernels[] = {GFL_KERNEL(gfl_filter_kernel), GFL_KERNEL(gfl_rank_kernel),
                    GFL_KERNEL(gfl_suppress_kernel), GFL_KERNEL(gfl_sigma_kernel), GFL_KERNEL(gfl_resize_kernel)};

cudaError_t launch_kernel(Kernel &kernel, dim3 grid, dim3 block, void **arguments, size_t shared_size) {
    std::lock_guard<std::mutex> lock(one_launch);
    kernel_call = [&] { kernel.call(arguments); };
    work = kernel.work;
    ++work.launches;
    const cudaError_t error = run_grid(grid, block, shared_size);
    kernel.work = work;
    return error;
}

/* Whether the call that begins now is the one that was chosen to fail. */
bool fails_now() { return launches_until_failure >= 0 && launches_until_failure-- == 0; }

}  // namespace

unsigned lane() { return current % 32; }

void wait_for_block() { any_of_block(false); }

bool any_of_block(bool own) {
    in_kernel = false;
    brought_any |= own;
    ++arrived;
    fibers[current].state = WAITS_FOR_BLOCK;
    release_block();
    back_to_scheduler();
    in_kernel = true;
    return all_any;
}

const unsigned *exchange(WarpOperation operation, unsigned mask, unsigned own) {
    in_kernel = false;
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
    in_kernel = true;
    return warp.all;
}

#ifdef GFL_TRAFFIC

/* Memory of the emulation itself and of the thread's own stack is none of a GPU's. */
GFL_UNCOUNTED static void access(const void *address, unsigned size, const void *code, bool counted = false) {
    if (!in_kernel) return;
    in_kernel = false;
    const char *byte = static_cast<const char *>(address), *stack = static_cast<const char *>(fibers[current].stack);
    const auto within = [byte](const void *begin, size_t length) {
        return (uintptr_t)byte - (uintptr_t)begin < length;
    };
    const bool shared = within(__start_gfl_shared, __stop_gfl_shared - __start_gfl_shared);
    if (counted || shared || (!within(__ehdr_start, _end - __ehdr_start) && !within(stack, kStackSize)))
        warp_traffic[current / 32].add((uintptr_t)code, lane(), counted ? COUNTED : shared ? SHARED : GLOBAL,
                                       (uintptr_t)byte, size);
    in_kernel = true;
}

GFL_UNCOUNTED void step() { access(nullptr, 0, __builtin_return_address(0), true); }

#else
void step() {}
#endif

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

cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared_size,
                             cudaStream_t) {
    if (fails_now()) return failure;
    for (Kernel &kernel : kernels)
        if (kernel.function == function) return launch_kernel(kernel, grid, block, arguments, shared_size);
    return cudaErrorInvalidDeviceFunction;
}

/* Run one kernel, as cuLaunchKernel would: `arguments` points to a pointer to each argument. Returns a cudaError_t. */
extern "C" int gfl_emulate_launch(const char *name, const unsigned grid[3], const unsigned block[3], size_t shared_size,
                                  void **arguments) {
    for (Kernel &kernel : kernels)
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

extern "C" void gfl_emulate_reset_work(void) {
    for (Kernel &kernel : kernels) kernel.work = {};
}

/* The name of kernel `index`, NULL beyond the last one; copies its Work, each 8 bytes, in the order of declaration. */
extern "C" const char *gfl_emulate_work(int index, uint64_t *into) {
    if (index >= (int)(sizeof kernels / sizeof *kernels)) return nullptr;
    memcpy(into, &kernels[index].work, sizeof(Work));
    return kernels[index].name;
}

#ifdef GFL_TRAFFIC /* what -fsanitize=thread calls */
#define GFL_HOOK(name, size) \
    extern "C" GFL_UNCOUNTED void __tsan_##name(void *address) { access(address, size, __builtin_return_address(0)); }
#define GFL_HOOKS(size) \
    GFL_HOOK(read##size, size)           \
    GFL_HOOK(write##size, size)          \
    GFL_HOOK(unaligned_read##size, size) \
    GFL_HOOK(unaligned_write##size, size)
GFL_HOOKS(1)
GFL_HOOKS(2)
GFL_HOOKS(4)
GFL_HOOKS(8)
GFL_HOOKS(16)
extern "C" GFL_UNCOUNTED void __tsan_read_range(void *address, unsigned long size) { access(address, size, __builtin_return_address(0)); }
extern "C" GFL_UNCOUNTED void __tsan_write_range(void *address, unsigned long size) { access(address, size, __builtin_return_address(0)); }
extern "C" GFL_UNCOUNTED void __tsan_func_entry(void *) {}
extern "C" GFL_UNCOUNTED void __tsan_func_exit(void) {}
extern "C" GFL_UNCOUNTED void __tsan_vptr_update(void *, void *) {}
extern "C" GFL_UNCOUNTED void __tsan_vptr_read(void *) {}
extern "C" GFL_UNCOUNTED void __tsan_init(void) {}
#endif
