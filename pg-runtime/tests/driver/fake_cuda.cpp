// A CUDA driver without a GPU: the functions that CubeCL's CUDA server calls, for a device that calls itself an
// H100. Memory is the host's. Modules must be binaries that hold the function asked for, and launches are checked
// against the device's limits. Then either nothing is computed, and results are the zeros of fresh memory; or
// FAKE_CUDA_KERNELS names a folder with the same kernels compiled for the host (pg-codegen/tests/cuda/host), and
// those run. What was done is written to the file that FAKE_CUDA_LOG names, when the process ends. Numbers of
// attributes and errors are those of cuda.h.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <algorithm>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <sys/mman.h>
#include <vector>

namespace {

constexpr int SUCCESS = 0, INVALID_VALUE = 1, NOT_FOUND = 500, INVALID_IMAGE = 200, OUT_OF_MEMORY = 2;
constexpr unsigned OPT_IN_SHARED = 227 << 10, DEFAULT_SHARED = 48 << 10;

struct Module {
    const char* image;
    size_t size;
};

// What kernels on the host are given: the structures of host/cuda_on_cpu.h.
struct HostMemory { unsigned char *data; size_t bytes; unsigned char *written; };
struct HostArg { HostMemory *memory; size_t offset, bytes; };
struct HostLaunch { const HostArg *args; size_t count; unsigned units, grid[3]; size_t shared_bytes; int reversed; };
using Run = int (*)(const HostLaunch *, char *, size_t);

struct Function {
    std::string name;
    unsigned dynamic_shared = DEFAULT_SHARED;
    Run run = nullptr;
    size_t buffers = 0;
};

// A buffer's end is not known here, only its allocation's: this is as far as a kernel may be watched.
constexpr size_t WATCHED = 4 << 20;

std::mutex lock;
std::map<uintptr_t, size_t> memory;
std::set<std::string> names;
unsigned modules, launches, most_shared, faults;
std::string first_fault;

int fault(const std::string& what, int code) {
    if (faults++ == 0) first_fault = what;
    return code;
}

// The kernel of a name among those compiled for the host, if there are any.
int find_on_host(Function* f) {
    const char* folder = std::getenv("FAKE_CUDA_KERNELS");
    if (!folder) return SUCCESS;
    static void* library = dlopen((std::string(folder) + "/kernels.so").c_str(), RTLD_NOW);
    if (!library) return fault(dlerror(), NOT_FOUND);
    FILE* index = std::fopen((std::string(folder) + "/kernels.txt").c_str(), "r");
    if (!index) return fault("no kernels.txt", NOT_FOUND);
    char name[128];
    size_t buffers;
    for (unsigned number = 0; std::fscanf(index, "%127s %zu", name, &buffers) == 2; number++)
        if (f->name == name) {
            f->run = reinterpret_cast<Run>(dlsym(library, ("run_" + std::to_string(number)).c_str()));
            f->buffers = buffers;
        }
    std::fclose(index);
    return f->run ? SUCCESS : fault(f->name + " was not compiled for the host", NOT_FOUND);
}

struct Log {
    ~Log() {
        const char* path = std::getenv("FAKE_CUDA_LOG");
        FILE* file = path ? std::fopen(path, "w") : nullptr;
        if (!file) return;
        std::fprintf(file, "modules %u\nfunctions %zu\nlaunches %u\nshared %u\nfaults %u %s\n", modules, names.size(),
                     launches, most_shared, faults, first_fault.c_str());
        std::fclose(file);
    }
} written_at_the_end;

int allocate(uintptr_t* at, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    // Pages are the host's only once they are touched.
    void* p = mmap(nullptr, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return OUT_OF_MEMORY;
    // Where kernels run, what nobody has written is no innocent number.
    if (std::getenv("FAKE_CUDA_KERNELS") && bytes <= size_t(64) << 20) std::memset(p, 0xff, bytes);
    *at = reinterpret_cast<uintptr_t>(p);
    memory[*at] = bytes ? bytes : 1;
    return SUCCESS;
}

int release(uintptr_t at) {
    std::lock_guard<std::mutex> guard(lock);
    auto found = memory.find(at);
    if (found == memory.end()) return fault("free of what is not allocated", INVALID_VALUE);
    munmap(reinterpret_cast<void*>(at), found->second);
    memory.erase(found);
    return SUCCESS;
}

bool inside(uintptr_t at, size_t bytes) {
    auto next = memory.upper_bound(at);
    if (next == memory.begin()) return false;
    auto [start, size] = *--next;
    return at + bytes <= start + size;
}

int run_on_host(const Function& f, const unsigned (&grid)[3], unsigned units, void** params) {
    static std::vector<unsigned char> written(WATCHED, 1);
    std::vector<HostMemory> memories;
    for (size_t i = 0; i < f.buffers; i++) {
        uintptr_t at;
        std::memcpy(&at, params[i], sizeof at);
        if (!inside(at, 1)) return fault(f.name + ": an argument is no memory", INVALID_VALUE);
        auto allocation = --memory.upper_bound(at);
        size_t bytes = std::min(allocation->first + allocation->second - at, WATCHED);
        memories.push_back({reinterpret_cast<unsigned char*>(at), bytes, written.data()});
    }
    std::vector<HostArg> args;
    for (auto& m : memories) args.push_back({&m, 0, m.bytes});
    // CubeCL lays shared arrays out in another order each time that it emits a kernel, so the one for the host may
    // reach further than the binary's.
    HostLaunch launch = {args.data(), args.size(), units, {grid[0], grid[1], grid[2]}, OPT_IN_SHARED, 0};
    char message[1024] = "";
    int faults = f.run(&launch, message, sizeof message);
    return faults ? fault(f.name + ": " + message, INVALID_VALUE) : SUCCESS;
}

int copy(void* to, const void* from, uintptr_t device, size_t bytes) {
    {
        std::lock_guard<std::mutex> guard(lock);
        if (!inside(device, bytes)) return fault("a copy beyond an allocation", INVALID_VALUE);
    }
    std::memcpy(to, from, bytes);
    return SUCCESS;
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return SUCCESS; }
int cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }
int cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
int cuDeviceGet(int* device, int number) { return number == 0 ? (*device = 0, SUCCESS) : INVALID_VALUE; }
int cuDeviceGetName(char* name, int bytes, int) { return std::snprintf(name, bytes, "NVIDIA H100 (a fake)"), SUCCESS; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = size_t(8) << 30, SUCCESS; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    static const std::map<int, int> known = {
        {1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 2147483647}, {6, 65535}, {7, 65535}, {8, DEFAULT_SHARED},
        {10, 32}, {16, 132}, {75, 9}, {76, 0}, {97, OPT_IN_SHARED},
    };
    auto found = known.find(attribute);
    *value = found == known.end() ? 0 : found->second;
    return SUCCESS;
}
int cuGetErrorName(int, const char** text) { return *text = "FAKE_CUDA_ERROR", SUCCESS; }
int cuGetErrorString(int, const char** text) {
    // Of the first fault, which is what a test wants to read.
    return *text = first_fault.empty() ? "an error of the fake driver" : first_fault.c_str(), SUCCESS;
}

int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &memory, SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxSetCurrent(void*) { return SUCCESS; }
int cuCtxSynchronize() { return SUCCESS; }

int cuStreamCreate(void** stream, unsigned) { return *stream = std::malloc(1), SUCCESS; }
int cuStreamDestroy_v2(void* stream) { return std::free(stream), SUCCESS; }
int cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
int cuStreamSynchronize(void*) { return SUCCESS; }
int cuEventCreate(void** event, unsigned) { return *event = std::malloc(1), SUCCESS; }
int cuEventDestroy_v2(void* event) { return std::free(event), SUCCESS; }
int cuEventRecord(void*, void*) { return SUCCESS; }
int cuEventSynchronize(void*) { return SUCCESS; }
int cuEventQuery(void*) { return SUCCESS; }

int cuMemAlloc_v2(uintptr_t* at, size_t bytes) { return allocate(at, bytes); }
int cuMemAllocAsync(uintptr_t* at, size_t bytes, void*) { return allocate(at, bytes); }
int cuMemFree_v2(uintptr_t at) { return release(at); }
int cuMemFreeAsync(uintptr_t at, void*) { return release(at); }
int cuMemAllocHost_v2(void** at, size_t bytes) { return *at = std::calloc(bytes ? bytes : 1, 1), *at ? SUCCESS : OUT_OF_MEMORY; }
int cuMemFreeHost(void* at) { return std::free(at), SUCCESS; }
int cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t bytes, void*) {
    return copy(reinterpret_cast<void*>(to), from, to, bytes);
}
int cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t bytes, void*) {
    return copy(to, reinterpret_cast<void*>(from), from, bytes);
}

int cuModuleLoadData(void** module, const void* image) {
    std::lock_guard<std::mutex> guard(lock);
    const char* bytes = static_cast<const char*>(image);
    if (std::memcmp(bytes, "\x7f" "ELF\x02", 5) != 0) return fault("a module that is no binary", INVALID_IMAGE);
    // The table of sections ends the file.
    uint64_t table;
    uint16_t entry, entries;
    std::memcpy(&table, bytes + 40, 8);
    std::memcpy(&entry, bytes + 58, 2);
    std::memcpy(&entries, bytes + 60, 2);
    modules++;
    *module = new Module{bytes, table + size_t(entry) * entries};
    return SUCCESS;
}
int cuModuleUnload(void*) { return SUCCESS; }
int cuModuleGetFunction(void** function, void* module, const char* name) {
    std::lock_guard<std::mutex> guard(lock);
    auto* m = static_cast<Module*>(module);
    std::string section = std::string(".text.") + name;
    if (!memmem(m->image, m->size, section.c_str(), section.size() + 1)) return fault("no " + section, NOT_FOUND);
    names.insert(name);
    auto* f = new Function{name};
    *function = f;
    return find_on_host(f);
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
    std::lock_guard<std::mutex> guard(lock);
    if (attribute != 8) return SUCCESS;
    if (value < 0 || unsigned(value) > OPT_IN_SHARED) return fault("too much shared memory", INVALID_VALUE);
    static_cast<Function*>(function)->dynamic_shared = value;
    return SUCCESS;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void*, void** params, void**) {
    std::lock_guard<std::mutex> guard(lock);
    auto* f = static_cast<Function*>(function);
    if (!gx || !gy || !gz || gx > 2147483647u || gy > 65535 || gz > 65535) return fault(f->name + ": grid", INVALID_VALUE);
    if (!bx || !by || !bz || bx * by * bz > 1024) return fault(f->name + ": block", INVALID_VALUE);
    if (shared > f->dynamic_shared) return fault(f->name + ": shared memory that was not asked for", INVALID_VALUE);
    uintptr_t first;
    std::memcpy(&first, params[0], sizeof first);
    if (!inside(first, 1)) return fault(f->name + ": its first argument is no memory", INVALID_VALUE);
    if (first % 16) return fault(f->name + ": its first argument is misaligned", INVALID_VALUE);
    if (shared > most_shared) most_shared = shared;
    launches++;
    return f->run ? run_on_host(*f, {gx, gy, gz}, bx * by * bz, params) : SUCCESS;
}

}  // extern "C"
