/* A stand-in for libcuda.so.1, for tests: cuda-python and pycuda load it as they load NVIDIA's. It has one GPU, whose memory
 * is the host's, and is as strict as a driver may be: per-thread stacks of contexts, work that is done as late as
 * possible, calls that a capture forbids, handles that are checked, images that an older driver refuses. Kernels run in
 * the emulation of plugins/emulation, which GFL_EDGE_STUB_KERNELS names; without it they do nothing. Its own functions begin
 * with stub_. Answers of CUDA and the rules of its calls are those of NVIDIA's "CUDA Driver API". */
#include <dlfcn.h>
#include <elf.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

enum Status {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    UNSUPPORTED_PTX_VERSION = 222,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    CONTEXT_IS_DESTROYED = 709,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
};

const std::map<int, std::pair<const char *, const char *>> errors = {
    {SUCCESS, {"CUDA_SUCCESS", "no error"}},
    {INVALID_VALUE, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {OUT_OF_MEMORY, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
    {NOT_INITIALIZED, {"CUDA_ERROR_NOT_INITIALIZED", "initialization error"}},
    {NO_DEVICE, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
    {INVALID_DEVICE, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}},
    {INVALID_IMAGE, {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"}},
    {INVALID_CONTEXT, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
    {NO_BINARY_FOR_GPU, {"CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"}},
    {UNSUPPORTED_PTX_VERSION, {"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."}},
    {INVALID_HANDLE, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
    {NOT_FOUND, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
    {NOT_READY, {"CUDA_ERROR_NOT_READY", "device not ready"}},
    {ILLEGAL_ADDRESS, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
    {CONTEXT_IS_DESTROYED, {"CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"}},
    {LAUNCH_FAILED, {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}},
    {NOT_SUPPORTED, {"CUDA_ERROR_NOT_SUPPORTED", "operation not supported"}},
    {CAPTURE_UNSUPPORTED, {"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"}},
    {CAPTURE_INVALIDATED,
     {"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"}},
    {CAPTURE_UNMATCHED,
     {"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not ended in the same stream as it began"}},
    {CAPTURE_IMPLICIT,
     {"CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing blocking stream"}},
    {CAPTURED_EVENT, {"CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"}},
    {CAPTURE_WRONG_THREAD,
     {"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "attempt to terminate a thread-local capture sequence from another thread"}},
};

/* ---- state ---- */

constexpr int kRelaxed = 2;
constexpr size_t kPage = 4096;

using Work = std::function<int()>;

struct Capture {
    std::vector<Work> work;
    std::thread::id thread;
    int mode;
    bool invalid = false;
};

struct Stream {
    bool blocking;
    std::deque<Work> work;
    std::unique_ptr<Capture> capture;
};

struct Event {
    bool timed, recorded = false, captured = false;
    std::shared_ptr<Stream> stream; /* where it was recorded last */
    uint64_t reached = 0; /* pieces of work done by the GPU until then; 0: not yet */
};

struct Block {
    size_t size, mapped;
    bool pinned;
};

struct Parameter {
    size_t offset, size;
};

struct Function {
    uintptr_t module;
    std::string name;
    std::vector<Parameter> parameters;
    size_t static_shared;
};

std::recursive_mutex mutex;
std::map<uintptr_t, Block> blocks;
std::map<uintptr_t, std::shared_ptr<Stream>> streams;
std::map<uintptr_t, std::shared_ptr<Event>> events;
std::map<uintptr_t, std::string> modules; /* their images */
std::map<uintptr_t, Function> functions;
std::map<uintptr_t, std::vector<Work>> graphs, executables;
std::map<std::string, int> failing; /* status by call */
std::vector<std::string> calls;
std::string log_text;
uintptr_t next_handle = 0x1000;
size_t room = (size_t)1 << 30;
uint64_t worked = 0;
int references = 0; /* of the primary context */
int initialized = 0, no_device = 0, sticky = 0, integrated = 0;
int driver_version = 13000, sm = 75, sleep_ms = 0;
std::string device_name = "Stub RTX 2080 Ti";

constexpr uintptr_t kPrimary = 0xC0DE;
thread_local std::vector<uintptr_t> stack;
thread_local int thread_mode = 0;

uintptr_t new_handle() { return next_handle += 0x10; }

/* Of the block in which `size` bytes from `address` on lie. */
const Block *block_of(uintptr_t address, size_t size) {
    auto after = blocks.upper_bound(address);
    if (after == blocks.begin()) return nullptr;
    auto &[start, block] = *--after;
    return address + size <= start + block.size ? &block : nullptr;
}

void invalidate(Stream &stream) {
    if (stream.capture) stream.capture->invalid = true;
}

/* For calls that may be unsafe while something is captured, by the rules of cuThreadExchangeStreamCaptureMode. */
int unsafe() {
    if (thread_mode == kRelaxed) return SUCCESS;
    int status = SUCCESS;
    for (auto &[handle, stream] : streams) {
        if (!stream->capture || stream->capture->mode == kRelaxed) continue;
        const bool own = stream->capture->thread == std::this_thread::get_id();
        if (!own && (stream->capture->mode != 0 || thread_mode != 0)) continue;
        invalidate(*stream);
        status = CAPTURE_UNSUPPORTED;
    }
    return status;
}

enum Need { NOTHING, INITIALIZED, CONTEXT, SAFE };

/* What every call begins with: the log, failures that were ordered, and what has to be there. */
int enter(const char *name, Need need) {
    calls.push_back(name);
    if (auto found = failing.find(name); found != failing.end() && found->second) return found->second;
    if (need == NOTHING) return SUCCESS;
    if (!initialized) return NOT_INITIALIZED;
    if (need == INITIALIZED) return SUCCESS;
    if (stack.empty()) return INVALID_CONTEXT;
    if (!references) return CONTEXT_IS_DESTROYED;
    if (sticky) return sticky;
    return need == SAFE ? unsafe() : SUCCESS;
}

#define ENTER(name, need)                             \
    std::unique_lock<std::recursive_mutex> lock(mutex); \
    if (const int refused = enter(#name, need)) return refused

std::shared_ptr<Stream> stream_of(uintptr_t handle) {
    auto found = streams.find(handle);
    return found == streams.end() ? nullptr : found->second;
}

/* Done without the lock, since a host function may wait for another thread that calls CUDA. */
void work_once(std::unique_lock<std::recursive_mutex> &lock, Stream &stream) {
    Work work = std::move(stream.work.front());
    stream.work.pop_front();
    lock.unlock();
    const int status = work();
    lock.lock();
    if (status && !sticky) sticky = status;
}

int drain(std::unique_lock<std::recursive_mutex> &lock, Stream &stream) {
    while (!stream.work.empty()) work_once(lock, stream);
    return sticky;
}

/* What comes before an event, and nothing else. */
int reach(std::unique_lock<std::recursive_mutex> &lock, const Event &event) {
    while (!event.reached && !event.stream->work.empty()) work_once(lock, *event.stream);
    return sticky;
}

int drain_all(std::unique_lock<std::recursive_mutex> &lock) {
    std::vector<std::shared_ptr<Stream>> all;
    for (auto &[handle, stream] : streams) all.push_back(stream);
    for (auto &stream : all) drain(lock, *stream);
    return sticky;
}

void unmap(uintptr_t address, const Block &block) { munmap((void *)address, block.mapped); }

/* What the primary context takes with it. */
void destroy_everything() {
    for (auto &[address, block] : blocks) unmap(address, block);
    blocks.clear();
    streams.clear();
    events.clear();
    modules.clear();
    functions.clear();
    executables.clear();
    graphs.clear();
    sticky = 0;
}

int allocate(uintptr_t *address, size_t size, bool pinned) {
    if (!size) return INVALID_VALUE;
    size_t used = 0;
    for (auto &[start, block] : blocks)
        if (!block.pinned) used += block.size;
    if (!pinned && size > room - used) return OUT_OF_MEMORY;
    const size_t mapped = (size + kPage - 1) / kPage * kPage;
    /* A page that nobody may touch comes after it */
    char *memory = (char *)mmap(nullptr, mapped + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(memory + mapped, kPage, PROT_NONE);
    memset(memory, 0xCD, size); /* what is read before it is written is no zero */
    *address = (uintptr_t)memory;
    blocks[*address] = {size, mapped + kPage, pinned};
    return SUCCESS;
}

int release(std::unique_lock<std::recursive_mutex> &lock, uintptr_t address, bool pinned) {
    auto found = blocks.find(address);
    if (found == blocks.end() || found->second.pinned != pinned) return INVALID_VALUE;
    drain_all(lock); /* freeing waits for the GPU */
    unmap(address, found->second);
    blocks.erase(address);
    return SUCCESS;
}

/* Puts work on a stream, or into what is captured from it. The legacy stream may not be used while a stream that waits for
 * it is captured, and both are done in order. */
int queue(std::unique_lock<std::recursive_mutex> &lock, uintptr_t handle, Work work) {
    auto stream = stream_of(handle);
    if (!stream) return handle <= 2 ? CONTEXT_IS_DESTROYED : INVALID_HANDLE;
    if (stream->capture) {
        if (stream->capture->invalid) return CAPTURE_INVALIDATED;
        stream->capture->work.push_back(std::move(work));
        return SUCCESS;
    }
    if (handle == 0)
        for (auto &[other, blocking] : streams)
            if (blocking->blocking && blocking->capture) {
                invalidate(*blocking);
                return CAPTURE_IMPLICIT;
            }
    if (stream->blocking && handle) drain(lock, *stream_of(0));
    if (!handle)
        for (auto &[other, blocking] : std::map(streams))
            if (other && blocking->blocking) drain(lock, *blocking);
    stream->work.push_back([work] {
        const int status = work();
        std::lock_guard<std::recursive_mutex> counting(mutex);
        ++worked;
        return status;
    });
    return SUCCESS;
}

/* ---- images ---- */

using Emulate = int (*)(const char *, const unsigned *, const unsigned *, size_t, void **);

Emulate emulation() {
    static Emulate found = [] {
        const char *path = getenv("GFL_EDGE_STUB_KERNELS");
        void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
        return library ? (Emulate)dlsym(library, "gfl_emulate_launch") : nullptr;
    }();
    return found;
}

/* Content of a section of a cubin; empty if it has none. */
std::string section(const std::string &image, const std::string &name, size_t *size = nullptr) {
    Elf64_Ehdr header;
    memcpy(&header, image.data(), sizeof header);
    auto at = [&](unsigned index) {
        Elf64_Shdr found;
        memcpy(&found, image.data() + header.e_shoff + index * sizeof found, sizeof found);
        return found;
    };
    const size_t names = at(header.e_shstrndx).sh_offset;
    for (unsigned index = 0; index < header.e_shnum; ++index) {
        const Elf64_Shdr found = at(index);
        if (name != image.data() + names + found.sh_name) continue;
        if (size) *size = found.sh_size;
        return found.sh_type == SHT_NOBITS ? "" : image.substr(found.sh_offset, found.sh_size);
    }
    return "";
}

/* Of a kernel, from the attributes that the compiler wrote into a cubin: 0x17 is a parameter's place and size. */
std::vector<Parameter> parameters_of(const std::string &image, const std::string &kernel) {
    const std::string info = section(image, ".nv.info." + kernel);
    std::vector<Parameter> found;
    for (size_t at = 0; at + 4 <= info.size();) {
        const unsigned char format = info[at], attribute = info[at + 1];
        uint16_t length;
        memcpy(&length, info.data() + at + 2, 2);
        if (format == 4 && attribute == 0x17) {
            uint16_t ordinal, offset;
            uint32_t packed;
            memcpy(&ordinal, info.data() + at + 8, 2);
            memcpy(&offset, info.data() + at + 10, 2);
            memcpy(&packed, info.data() + at + 12, 4);
            if (found.size() <= ordinal) found.resize(ordinal + 1);
            found[ordinal] = {offset, packed >> 18};
        }
        at += 4 + (format == 4 ? length : 0);
    }
    return found;
}

/* A driver reads cubins of its own major version and older, and PTX of its own version and older. */
int image_status(const std::string &image) {
    if (image.compare(0, 4, "\x7f" "ELF") == 0) {
        Elf64_Ehdr header;
        memcpy(&header, image.data(), sizeof header);
        if (header.e_ident[EI_ABIVERSION] >= 8 && driver_version < 13000) return INVALID_IMAGE;
        const unsigned built = header.e_ident[EI_ABIVERSION] >= 8 ? header.e_flags >> 8 & 0xff : header.e_flags & 0xff;
        return built / 10 == (unsigned)sm / 10 && built <= (unsigned)sm ? SUCCESS : NO_BINARY_FOR_GPU;
    }
    const size_t version = image.find(".version ");
    if (version == std::string::npos) return INVALID_IMAGE;
    const double isa = atof(image.c_str() + version + 9); /* 8.5 is of CUDA 12.5, 9.0 of 13.0 */
    const double newest = driver_version >= 13000 ? 9 + driver_version % 1000 / 100. : 8 + driver_version % 1000 / 100.;
    return isa <= newest + 0.001 ? SUCCESS : UNSUPPORTED_PTX_VERSION;
}

/* ---- kernels ---- */

/* fill(uint8_t value, void *address, int count), for tests of a device that need some kernel. */
int fill(void **arguments) {
    memset(*(void **)arguments[1], *(uint8_t *)arguments[0], *(int *)arguments[2]);
    return SUCCESS;
}

struct Call {
    Function function;
    unsigned grid[3], block[3];
    size_t shared;
    std::vector<std::string> values;
};

int run(Call call) {
    std::vector<void *> arguments;
    for (std::string &value : call.values) arguments.push_back(value.data());
    for (std::string &value : call.values) {
        uintptr_t address = 0;
        if (value.size() == sizeof address) memcpy(&address, value.data(), sizeof address);
        std::lock_guard<std::recursive_mutex> lock(mutex);
        if (address && !block_of(address, 1)) return ILLEGAL_ADDRESS;
    }
    if (call.function.name == "fill") return fill(arguments.data());
    if (!emulation()) return SUCCESS;
    return emulation()(call.function.name.c_str(), call.grid, call.block, call.shared, arguments.data()) ? LAUNCH_FAILED : SUCCESS;
}

}  // namespace

/* ---- the driver ---- */

#define API extern "C" __attribute__((visibility("default"))) int

API cuInit(unsigned flags) {
    ENTER(cuInit, NOTHING);
    if (flags) return INVALID_VALUE;
    if (no_device) return NO_DEVICE;
    initialized = 1;
    return SUCCESS;
}

API cuDriverGetVersion(int *version) {
    ENTER(cuDriverGetVersion, NOTHING);
    *version = driver_version;
    return SUCCESS;
}

API cuGetErrorName(int error, const char **text) {
    auto found = errors.find(error);
    *text = found == errors.end() ? nullptr : found->second.first;
    return found == errors.end() ? INVALID_VALUE : SUCCESS;
}

API cuGetErrorString(int error, const char **text) {
    auto found = errors.find(error);
    *text = found == errors.end() ? nullptr : found->second.second;
    return found == errors.end() ? INVALID_VALUE : SUCCESS;
}

API cuDeviceGetCount(int *count) {
    ENTER(cuDeviceGetCount, INITIALIZED);
    *count = 1;
    return SUCCESS;
}

API cuDeviceGet(int *device, int ordinal) {
    ENTER(cuDeviceGet, INITIALIZED);
    *device = ordinal;
    return ordinal ? INVALID_DEVICE : SUCCESS;
}

API cuDeviceGetName(char *name, int length, int device) {
    ENTER(cuDeviceGetName, INITIALIZED);
    snprintf(name, length, "%s", device_name.c_str());
    return device ? INVALID_DEVICE : SUCCESS;
}

API cuDeviceGetPCIBusId(char *id, int length, int device) {
    ENTER(cuDeviceGetPCIBusId, INITIALIZED);
    snprintf(id, length, "0000:0B:00.0");
    return device ? INVALID_DEVICE : SUCCESS;
}

API cuDeviceGetUuid_v2(char *uuid, int device) {
    ENTER(cuDeviceGetUuid, INITIALIZED);
    for (int i = 0; i < 16; ++i) uuid[i] = (char)(i * 17);
    return device ? INVALID_DEVICE : SUCCESS;
}

API cuDeviceGetAttribute(int *value, int attribute, int device) {
    ENTER(cuDeviceGetAttribute, INITIALIZED);
    const std::map<int, int> known = {{1, 1024}, {8, 48 << 10}, {10, 32}, {16, 68}, {18, integrated}, {19, 1}, {75, sm / 10}, {76, sm % 10}, {81, 48 << 10}, {97, 64 << 10}};
    auto found = known.find(attribute);
    *value = found == known.end() ? 0 : found->second;
    return device ? INVALID_DEVICE : SUCCESS;
}

API cuDeviceComputeCapability(int *major, int *minor, int device) {
    ENTER(cuDeviceComputeCapability, INITIALIZED);
    *major = sm / 10;
    *minor = sm % 10;
    return device ? INVALID_DEVICE : SUCCESS;
}

API cuDevicePrimaryCtxRetain(uintptr_t *context, int device) {
    ENTER(cuDevicePrimaryCtxRetain, INITIALIZED);
    if (device) return INVALID_DEVICE;
    if (!references++) {
        for (uintptr_t own : {0, 1, 2}) { /* the legacy stream, by both of its handles, and the thread's */
            streams[own] = own == 1 ? streams[0] : std::make_shared<Stream>();
            streams[own]->blocking = true;
        }
    }
    *context = kPrimary;
    return SUCCESS;
}

API cuDevicePrimaryCtxRelease_v2(int device) {
    ENTER(cuDevicePrimaryCtxRelease, INITIALIZED);
    if (device) return INVALID_DEVICE;
    if (!references) return INVALID_CONTEXT;
    if (!--references) destroy_everything();
    return SUCCESS;
}

API cuCtxPushCurrent_v2(uintptr_t context) {
    ENTER(cuCtxPushCurrent, INITIALIZED);
    if (context != kPrimary) return INVALID_CONTEXT;
    stack.push_back(context);
    return SUCCESS;
}

API cuCtxPopCurrent_v2(uintptr_t *context) {
    ENTER(cuCtxPopCurrent, INITIALIZED);
    if (stack.empty()) return INVALID_CONTEXT;
    if (context) *context = stack.back();
    stack.pop_back();
    return SUCCESS;
}

API cuCtxGetCurrent(uintptr_t *context) {
    ENTER(cuCtxGetCurrent, INITIALIZED);
    *context = stack.empty() ? 0 : stack.back();
    return SUCCESS;
}

API cuCtxGetDevice(int *device) {
    ENTER(cuCtxGetDevice, CONTEXT);
    *device = 0;
    return SUCCESS;
}

API cuCtxSynchronize() {
    ENTER(cuCtxSynchronize, SAFE);
    return drain_all(lock);
}

API cuThreadExchangeStreamCaptureMode(int *mode) {
    ENTER(cuThreadExchangeStreamCaptureMode, INITIALIZED);
    std::swap(*mode, thread_mode);
    return SUCCESS;
}

API cuMemAlloc_v2(uintptr_t *address, size_t size) {
    ENTER(cuMemAlloc, SAFE);
    return allocate(address, size, false);
}

API cuMemFree_v2(uintptr_t address) {
    ENTER(cuMemFree, SAFE);
    return address ? release(lock, address, false) : SUCCESS;
}

API cuMemAllocHost_v2(void **address, size_t size) {
    ENTER(cuMemAllocHost, SAFE);
    return allocate((uintptr_t *)address, size, true);
}

API cuMemHostAlloc(void **address, size_t size, unsigned) {
    ENTER(cuMemHostAlloc, SAFE);
    return allocate((uintptr_t *)address, size, true);
}

API cuMemFreeHost(void *address) {
    ENTER(cuMemFreeHost, SAFE);
    return release(lock, (uintptr_t)address, true);
}

API cuMemHostGetDevicePointer_v2(uintptr_t *address, void *host, unsigned) {
    ENTER(cuMemHostGetDevicePointer, CONTEXT);
    *address = (uintptr_t)host;
    return block_of(*address, 1) ? SUCCESS : INVALID_VALUE;
}

API cuMemGetInfo_v2(size_t *free, size_t *total) {
    ENTER(cuMemGetInfo, CONTEXT);
    *free = *total = room;
    for (auto &[start, block] : blocks)
        if (!block.pinned) *free -= block.size;
    return SUCCESS;
}

namespace {

/* Memory is looked for when the copy is done: what is freed before is no memory any more. */
Work copy(uintptr_t device, uintptr_t to, uintptr_t from, size_t size) {
    return [=] {
        {
            std::lock_guard<std::recursive_mutex> lock(mutex);
            const Block *block = block_of(device, size);
            if (!block || block->pinned) return (int)ILLEGAL_ADDRESS;
        }
        memcpy((void *)to, (void *)from, size);
        return (int)SUCCESS;
    };
}

/* From and to memory that is not pinned, copies need a buffer of the driver's own, which a capture does not have. */
int host_status(uintptr_t host, size_t size, uintptr_t handle) {
    const Block *block = block_of(host, size);
    if (block && block->pinned) return SUCCESS;
    auto stream = stream_of(handle);
    if (!stream || !stream->capture) return SUCCESS;
    invalidate(*stream);
    return CAPTURE_UNSUPPORTED;
}

}  // namespace

API cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t size, uintptr_t stream) {
    ENTER(cuMemcpyHtoDAsync, CONTEXT);
    if (const int status = host_status((uintptr_t)from, size, stream)) return status;
    return block_of(to, size) ? queue(lock, stream, copy(to, to, (uintptr_t)from, size)) : INVALID_VALUE;
}

API cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t size, uintptr_t stream) {
    ENTER(cuMemcpyDtoHAsync, CONTEXT);
    if (const int status = host_status((uintptr_t)to, size, stream)) return status;
    return block_of(from, size) ? queue(lock, stream, copy(from, (uintptr_t)to, from, size)) : INVALID_VALUE;
}

/* Returns when the host's memory is free again, which is before the copy on the legacy stream is done. */
API cuMemcpyHtoD_v2(uintptr_t to, const void *from, size_t size) {
    ENTER(cuMemcpyHtoD, SAFE);
    if (!block_of(to, size)) return INVALID_VALUE;
    auto staged = std::make_shared<std::string>((const char *)from, size);
    return queue(lock, 0, [=] { return copy(to, to, (uintptr_t)staged->data(), size)(); });
}

API cuMemcpyDtoH_v2(void *to, uintptr_t from, size_t size) {
    ENTER(cuMemcpyDtoH, SAFE);
    if (!block_of(from, size)) return INVALID_VALUE;
    if (const int status = queue(lock, 0, copy(from, (uintptr_t)to, from, size))) return status;
    return drain(lock, *stream_of(0));
}

API cuMemsetD8Async(uintptr_t to, unsigned char value, size_t size, uintptr_t stream) {
    ENTER(cuMemsetD8Async, CONTEXT);
    if (!block_of(to, size)) return INVALID_VALUE;
    return queue(lock, stream, [=] {
        std::lock_guard<std::recursive_mutex> held(mutex);
        if (!block_of(to, size)) return (int)ILLEGAL_ADDRESS;
        memset((void *)to, value, size);
        return (int)SUCCESS;
    });
}

API cuStreamCreate(uintptr_t *stream, unsigned flags) {
    ENTER(cuStreamCreate, CONTEXT);
    *stream = new_handle();
    streams[*stream] = std::make_shared<Stream>();
    streams[*stream]->blocking = flags != 1;
    return SUCCESS;
}

API cuStreamCreateWithPriority(uintptr_t *stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }

API cuStreamDestroy_v2(uintptr_t handle) {
    ENTER(cuStreamDestroy, CONTEXT);
    auto stream = stream_of(handle);
    if (!stream || handle <= 2) return INVALID_HANDLE;
    if (stream->capture) {
        invalidate(*stream);
        return CAPTURE_UNSUPPORTED;
    }
    drain(lock, *stream); /* what is queued still runs */
    streams.erase(handle);
    return SUCCESS;
}

API cuStreamSynchronize(uintptr_t handle) {
    ENTER(cuStreamSynchronize, CONTEXT);
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (stream->capture) {
        invalidate(*stream);
        return CAPTURE_UNSUPPORTED;
    }
    lock.unlock();
    if (sleep_ms) usleep(1000 * sleep_ms);
    lock.lock();
    return drain(lock, *stream);
}

API cuStreamQuery(uintptr_t handle) {
    ENTER(cuStreamQuery, CONTEXT);
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (stream->capture) {
        invalidate(*stream);
        return CAPTURE_UNSUPPORTED;
    }
    return stream->work.empty() ? SUCCESS : NOT_READY;
}

API cuStreamIsCapturing(uintptr_t handle, int *status) {
    ENTER(cuStreamIsCapturing, CONTEXT);
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    *status = !stream->capture ? 0 : stream->capture->invalid ? 2 : 1;
    return SUCCESS;
}

API cuStreamBeginCapture_v2(uintptr_t handle, int mode) {
    ENTER(cuStreamBeginCapture, CONTEXT);
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (handle <= 1) return CAPTURE_UNSUPPORTED;
    if (stream->capture) return INVALID_VALUE;
    stream->capture = std::make_unique<Capture>();
    stream->capture->thread = std::this_thread::get_id();
    stream->capture->mode = mode;
    return SUCCESS;
}

API cuStreamEndCapture(uintptr_t handle, uintptr_t *graph) {
    ENTER(cuStreamEndCapture, CONTEXT);
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (!stream->capture) return CAPTURE_UNMATCHED;
    if (stream->capture->mode != kRelaxed && stream->capture->thread != std::this_thread::get_id()) return CAPTURE_WRONG_THREAD;
    auto capture = std::move(stream->capture);
    *graph = 0;
    if (capture->invalid) return CAPTURE_INVALIDATED;
    *graph = new_handle();
    graphs[*graph] = std::move(capture->work);
    return SUCCESS;
}

API cuStreamWaitEvent(uintptr_t handle, uintptr_t event_handle, unsigned) {
    ENTER(cuStreamWaitEvent, CONTEXT);
    auto found = events.find(event_handle);
    if (found == events.end()) return INVALID_HANDLE;
    auto event = found->second;
    if (!event->recorded) return SUCCESS;
    return queue(lock, handle, [event] {
        std::unique_lock<std::recursive_mutex> held(mutex);
        return reach(held, *event);
    });
}

API cuLaunchHostFunc(uintptr_t stream, void (*function)(void *), void *data) {
    ENTER(cuLaunchHostFunc, CONTEXT);
    return queue(lock, stream, [=] {
        function(data);
        return (int)SUCCESS;
    });
}

API cuGraphInstantiateWithFlags(uintptr_t *executable, uintptr_t graph, unsigned long long) {
    ENTER(cuGraphInstantiate, CONTEXT);
    auto found = graphs.find(graph);
    if (found == graphs.end()) return INVALID_HANDLE;
    *executable = new_handle();
    executables[*executable] = found->second;
    return SUCCESS;
}

API cuGraphDestroy(uintptr_t graph) {
    ENTER(cuGraphDestroy, CONTEXT);
    return graphs.erase(graph) ? SUCCESS : INVALID_HANDLE;
}

API cuGraphExecDestroy(uintptr_t executable) {
    ENTER(cuGraphExecDestroy, CONTEXT);
    return executables.erase(executable) ? SUCCESS : INVALID_HANDLE;
}

API cuGraphLaunch(uintptr_t executable, uintptr_t stream) {
    ENTER(cuGraphLaunch, CONTEXT);
    auto found = executables.find(executable);
    if (found == executables.end()) return INVALID_HANDLE;
    for (const Work &work : found->second)
        if (const int status = queue(lock, stream, work)) return status;
    return SUCCESS;
}

API cuEventCreate(uintptr_t *event, unsigned flags) {
    ENTER(cuEventCreate, CONTEXT);
    *event = new_handle();
    events[*event] = std::make_shared<Event>();
    events[*event]->timed = !(flags & 2);
    return SUCCESS;
}

API cuEventDestroy_v2(uintptr_t event) {
    ENTER(cuEventDestroy, CONTEXT);
    return events.erase(event) ? SUCCESS : INVALID_HANDLE;
}

namespace {

int record(std::unique_lock<std::recursive_mutex> &lock, uintptr_t handle, uintptr_t stream_handle, bool external) {
    auto found = events.find(handle);
    auto stream = stream_of(stream_handle);
    if (found == events.end() || !stream) return INVALID_HANDLE;
    auto event = found->second;
    event->recorded = true;
    event->captured = stream->capture && !external;
    if (event->captured) return SUCCESS; /* orders what is captured, and has no time */
    if (external && !stream->capture) return INVALID_VALUE;
    event->reached = 0;
    event->stream = stream;
    return queue(lock, stream_handle, [event] {
        std::lock_guard<std::recursive_mutex> held(mutex);
        event->reached = worked + 1;
        return (int)SUCCESS;
    });
}

}  // namespace

API cuEventRecord(uintptr_t event, uintptr_t stream) {
    ENTER(cuEventRecord, CONTEXT);
    return record(lock, event, stream, false);
}

API cuEventRecordWithFlags(uintptr_t event, uintptr_t stream, unsigned flags) {
    ENTER(cuEventRecordWithFlags, CONTEXT);
    return record(lock, event, stream, flags & 1);
}

API cuEventSynchronize(uintptr_t event) {
    ENTER(cuEventSynchronize, CONTEXT);
    auto found = events.find(event);
    if (found == events.end()) return INVALID_HANDLE;
    if (found->second->captured) return CAPTURED_EVENT;
    const auto kept = found->second;
    return kept->recorded ? reach(lock, *kept) : SUCCESS;
}

API cuEventQuery(uintptr_t event) {
    ENTER(cuEventQuery, CONTEXT);
    auto found = events.find(event);
    if (found == events.end()) return INVALID_HANDLE;
    if (found->second->captured) return CAPTURED_EVENT;
    return !found->second->recorded || found->second->reached ? SUCCESS : NOT_READY;
}

/* A millisecond for each piece of work. */
API cuEventElapsedTime_v2(float *milliseconds, uintptr_t start, uintptr_t end) {
    ENTER(cuEventElapsedTime, CONTEXT);
    auto first = events.find(start), last = events.find(end);
    if (first == events.end() || last == events.end()) return INVALID_HANDLE;
    for (auto &event : {first->second, last->second}) {
        if (event->captured) return CAPTURED_EVENT;
        if (!event->timed || !event->recorded) return INVALID_HANDLE;
        if (!event->reached) return NOT_READY;
    }
    *milliseconds = (float)(int64_t)(last->second->reached - first->second->reached);
    return SUCCESS;
}

API cuEventElapsedTime(float *milliseconds, uintptr_t start, uintptr_t end) {
    return cuEventElapsedTime_v2(milliseconds, start, end);
}

namespace {

int load(uintptr_t *module, const void *image) {
    const char *text = (const char *)image;
    std::string content(text, strnlen(text, 16));
    if (content.compare(0, 4, "\x7f" "ELF") == 0) {
        Elf64_Ehdr header;
        memcpy(&header, text, sizeof header);
        /* Program headers come last */
        content.assign(text, std::max(header.e_phoff + header.e_phnum * sizeof(Elf64_Phdr),
                                      header.e_shoff + header.e_shnum * sizeof(Elf64_Shdr)));
    } else {
        content = text;
    }
    if (const int status = image_status(content)) return status;
    *module = new_handle();
    modules[*module] = content;
    return SUCCESS;
}

}  // namespace

API cuModuleLoadData(uintptr_t *module, const void *image) {
    ENTER(cuModuleLoadData, SAFE);
    return load(module, image);
}

API cuModuleLoadDataEx(uintptr_t *module, const void *image, unsigned, int *, void **) {
    ENTER(cuModuleLoadDataEx, SAFE);
    return load(module, image);
}

API cuModuleUnload(uintptr_t module) {
    ENTER(cuModuleUnload, SAFE);
    if (!modules.count(module)) return INVALID_HANDLE;
    drain_all(lock);
    modules.erase(module);
    for (auto it = functions.begin(); it != functions.end();) it = it->second.module == module ? functions.erase(it) : ++it;
    return SUCCESS;
}

API cuModuleGetFunction(uintptr_t *function, uintptr_t module, const char *name) {
    ENTER(cuModuleGetFunction, CONTEXT);
    auto found = modules.find(module);
    if (found == modules.end()) return INVALID_HANDLE;
    const bool machine_code = found->second.compare(0, 4, "\x7f" "ELF") == 0;
    if (machine_code ? section(found->second, std::string(".text.") + name).empty()
                     : found->second.find(std::string(".entry ") + name + "(") == std::string::npos)
        return NOT_FOUND;
    size_t shared = 0;
    if (machine_code) section(found->second, std::string(".nv.shared.") + name, &shared);
    *function = new_handle();
    functions[*function] = {module, name, machine_code ? parameters_of(found->second, name) : std::vector<Parameter>{}, shared};
    return SUCCESS;
}

API cuFuncSetAttribute(uintptr_t function, int, int) {
    ENTER(cuFuncSetAttribute, CONTEXT);
    return functions.count(function) ? SUCCESS : INVALID_HANDLE;
}

API cuFuncSetBlockShape(uintptr_t function, int, int, int) {
    ENTER(cuFuncSetBlockShape, CONTEXT);
    return functions.count(function) ? SUCCESS : INVALID_HANDLE;
}

API cuFuncGetAttribute(int *value, int, uintptr_t function) {
    ENTER(cuFuncGetAttribute, CONTEXT);
    *value = 0;
    return functions.count(function) ? SUCCESS : INVALID_HANDLE;
}

/* Parameters come one by one or, as from pycuda, in one block. */
static int launch(std::unique_lock<std::recursive_mutex> &lock, uintptr_t function, unsigned gx, unsigned gy, unsigned gz,
                  unsigned bx, unsigned by, unsigned bz, unsigned shared, uintptr_t stream, void **parameters, void **extra) {
    auto found = functions.find(function);
    if (found == functions.end()) return INVALID_HANDLE;
    if (!gx || !gy || !gz || !bx || !by || !bz || bx * by * bz > 1024 || gy > 65535 || gz > 65535) return INVALID_VALUE;
    if (found->second.static_shared + shared > 48 << 10) return INVALID_VALUE;
    Call call{found->second, {gx, gy, gz}, {bx, by, bz}, shared, {}};
    const char *packed = nullptr;
    size_t packed_size = 0;
    for (void **option = extra; option && *option; option += 2) {
        if ((uintptr_t)*option == 1) packed = (const char *)option[1];
        if ((uintptr_t)*option == 2) packed_size = *(size_t *)option[1];
    }
    for (size_t i = 0; i < found->second.parameters.size(); ++i) {
        const Parameter &parameter = found->second.parameters[i];
        if (!parameters && (!packed || parameter.offset + parameter.size > packed_size)) return INVALID_VALUE;
        call.values.emplace_back(parameters ? (const char *)parameters[i] : packed + parameter.offset, parameter.size);
    }
    return queue(lock, stream, [call] { return run(call); });
}

API cuLaunchKernel(uintptr_t function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, uintptr_t stream, void **parameters, void **extra) {
    ENTER(cuLaunchKernel, CONTEXT);
    return launch(lock, function, gx, gy, gz, bx, by, bz, shared, stream, parameters, extra);
}

struct Attribute {
    int id;
    alignas(8) char value[64];
};

struct LaunchConfig {
    unsigned grid[3], block[3], shared;
    uintptr_t stream;
    Attribute *attributes;
    unsigned number;
};

/* Of all attributes, only the one that lets a kernel begin before the one ahead of it on the stream has ended; where a GPU or a
 * driver is too old for it, no launch may ask for it. */
API cuLaunchKernelEx(const LaunchConfig *config, uintptr_t function, void **parameters, void **extra) {
    constexpr int overlap = 6;
    ENTER(cuLaunchKernelEx, CONTEXT);
    for (unsigned i = 0; i < config->number; ++i)
        if (config->attributes[i].id != overlap || sm < 90 || driver_version < 12030) return NOT_SUPPORTED;
    const auto &[x, y, z] = config->grid;
    const auto &[bx, by, bz] = config->block;
    return launch(lock, function, x, y, z, bx, by, bz, config->shared, config->stream, parameters, extra);
}

/* Names that the newest version of a function has; the others are found as they are. */
API cuGetProcAddress_v2(const char *name, void **function, int, uint64_t, int *status) {
    static void *self = [] {
        Dl_info info;
        dladdr((void *)cuInit, &info);
        return dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    }();
    *function = nullptr;
    for (const char *suffix : {"_v2", "WithFlags", ""})
        if (!*function) *function = dlsym(self, (std::string(name) + suffix).c_str());
    if (status) *status = *function ? 0 : 1;
    return SUCCESS;
}

API cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}

#define REFUSED(name)                \
    API name() {                     \
        ENTER(name, NOTHING);        \
        return NOT_SUPPORTED;        \
    }
#include "refused.inc"

/* NVRTC asks for it, and does without a driver where it is told that there is none. */
API cuGetExportTable(const void **table, const void *) {
    *table = nullptr;
    return NOT_FOUND;
}

/* ---- for the tests ---- */

/* "cuInit cuDeviceGet ...", all calls so far; valid until the next call. */
extern "C" const char *stub_calls() {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    log_text.clear();
    for (const std::string &call : calls) log_text += call + " ";
    return log_text.c_str();
}

extern "C" void stub_clear_calls() {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    calls.clear();
}

/* Let every call of that name answer `status` from now on; 0: no longer. */
extern "C" void stub_fail(const char *name, int status) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    failing[name] = status;
}

extern "C" void stub_set(const char *what, long value) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    const std::string name = what;
    if (name == "driver_version") driver_version = (int)value;
    if (name == "sm") sm = (int)value;
    if (name == "sleep_ms") sleep_ms = (int)value;
    if (name == "room") room = (size_t)value;
    if (name == "no_device") no_device = (int)value;
    if (name == "integrated") integrated = (int)value;
    if (name == "sticky") sticky = (int)value;
}

/* How much there is: "device", "pinned" (blocks), "streams" (of the user), "events", "modules", "graphs", "references" (of the
 * primary context), "stack" (of the calling thread), "queued" (pieces of work), "capturing" (streams). */
extern "C" long stub_count(const char *what) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    const std::string name = what;
    long pinned = 0, queued = 0, own = 0, capturing = 0;
    for (auto &[address, block] : blocks) pinned += block.pinned;
    for (auto &[handle, stream] : streams) {
        queued += handle == 1 ? 0 : (long)stream->work.size();
        own += handle > 2;
        capturing += handle != 1 && stream->capture;
    }
    const std::map<std::string, long> found = {
        {"device", (long)blocks.size() - pinned}, {"pinned", pinned}, {"streams", own}, {"events", (long)events.size()},
        {"modules", (long)modules.size()}, {"graphs", (long)(graphs.size() + executables.size())}, {"references", references},
        {"stack", (long)stack.size()}, {"queued", queued}, {"capturing", capturing}};
    return found.at(name);
}

/* Bytes of the block that begins at `address`; 0 where none does. */
extern "C" long stub_block_size(uintptr_t address) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    auto found = blocks.find(address);
    return found == blocks.end() ? 0 : (long)found->second.size;
}
