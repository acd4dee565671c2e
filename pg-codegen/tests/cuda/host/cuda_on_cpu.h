// CUDA's built-ins for a host compiler, and a block of threads run as fibers, so that emitted kernels can be
// executed and watched without a GPU. Every access of a buffer is checked: bounds, alignment, memory that
// nobody wrote, and accesses of two threads that no barrier orders. A fault is written down and execution
// goes on with zeros; nothing here stops the process, and nothing here knows what a kernel computes.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

struct uint3 { unsigned x, y, z; };
static uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
static uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace host {

// ---- What the tests hand over; the same structures stand in host/mod.rs.

// An allocation, with a flag for each byte that somebody has written.
struct Memory { unsigned char *data; size_t bytes; unsigned char *written; };
// A buffer of a kernel: a part of an allocation.
struct Arg { Memory *memory; size_t offset, bytes; };
struct Launch { const Arg *args; size_t count; unsigned units, grid[3]; size_t shared_bytes; int reversed; };

// ---- Faults.

static char *MESSAGE;
static size_t MESSAGE_BYTES;
static int FAULTS;

__attribute__((format(printf, 1, 2))) static void fault(const char *format, ...) {
    if (FAULTS++ == 0) {
        va_list args;
        va_start(args, format);
        int n = vsnprintf(MESSAGE, MESSAGE_BYTES, format, args);
        va_end(args);
        if (n >= 0 && (size_t)n < MESSAGE_BYTES)
            snprintf(MESSAGE + n, MESSAGE_BYTES - n, " (block %u, thread %u)",
                     blockIdx.x + gridDim.x * blockIdx.y, threadIdx.x);
    }
}

// ---- Who touched what: of each two bytes, the last writer and the last readers.

struct Access { unsigned block, thread, epoch; };  // block 0: nobody; epoch: barriers passed before
static Access NOW;
static const unsigned COPIED = ~0u;  // stands for a thread: an asynchronous copy that has landed

struct Cell {
    Access write, read;
    unsigned barrier, phase;      // of the copy, where write.thread is COPIED
    bool threads, blocks, flight; // read by several threads since, or by several blocks; a copy is under way
};
static const size_t GRAIN = 2;

static bool ordered(const Access &earlier) {
    if (earlier.block == 0) return true;
    return earlier.block == NOW.block && (earlier.thread == NOW.thread || earlier.epoch < NOW.epoch);
}

static bool has_waited(unsigned barrier, unsigned phase);

static const char *read_fault(Cell &c) {
    if (c.flight) return "reads what an asynchronous copy has not brought yet";
    bool copied = c.write.thread == COPIED && c.write.block == NOW.block && has_waited(c.barrier, c.phase);
    if (!copied && !ordered(c.write)) return "reads what another thread writes, with no barrier between";
    if (c.read.block != 0 && c.read.block != NOW.block) c.blocks = true;
    bool together = c.read.block == NOW.block && c.read.epoch == NOW.epoch;
    c.threads = together && (c.threads || c.read.thread != NOW.thread);
    c.read = NOW;
    return nullptr;
}

static const char *write_fault(Cell &c) {
    if (c.flight) return "writes where an asynchronous copy is under way";
    if (!ordered(c.write)) return "writes what another thread writes, with no barrier between";
    bool several = c.blocks || (c.threads && c.read.block == NOW.block && c.read.epoch == NOW.epoch);
    if (several || !ordered(c.read)) return "writes what another thread reads, with no barrier between";
    c.write = NOW;
    return nullptr;
}

// A range of memory with its shadow.
struct Range {
    unsigned char *data, *written;
    Cell *cells;  // of data
    size_t bytes;
    const char *name;
    int number;
};

// Where `bytes` at `offset` may be accessed; otherwise null, and a fault.
static unsigned char *touch(Range &r, size_t offset, size_t bytes, size_t align, bool write, int line) {
    if (bytes > r.bytes || offset > r.bytes - bytes) {
        fault("line %d: %s %s %d out of bounds: bytes %zu to %zu of %zu", line, write ? "writes" : "reads", r.name,
              r.number, offset, offset + bytes, r.bytes);
        return nullptr;
    }
    unsigned char *at = r.data + offset;
    if ((uintptr_t)at % align) {
        fault("line %d: misaligned: %zu bytes at byte %zu of %s %d", line, bytes, offset, r.name, r.number);
        return nullptr;
    }
    for (size_t i = 0; i < bytes; i++)
        if (write) {
            r.written[offset + i] = 1;
        } else if (!r.written[offset + i]) {
            Cell &c = r.cells[(offset + i) / GRAIN];
            fault("line %d: reads byte %zu of %s %d, which %s", line, offset + i, r.name, r.number,
                  c.flight ? "an asynchronous copy has not brought yet" : "nobody has written");
            return nullptr;
        }
    for (size_t i = 0; i < bytes; i += GRAIN) {
        Cell &c = r.cells[(offset + i) / GRAIN];
        if (const char *why = write ? write_fault(c) : read_fault(c)) {
            fault("line %d: %s: byte %zu of %s %d", line, why, offset + i, r.name, r.number);
            return nullptr;
        }
    }
    return at;
}

template <class T> struct Ref {
    using Value = std::remove_const_t<T>;
    Range &range; size_t offset; int line;
    operator Value() const {
        Value value{};
        if (unsigned char *at = touch(range, offset, sizeof(T), alignof(T), false, line)) memcpy(&value, at, sizeof(T));
        return value;
    }
    void operator=(const Value &value) const {
        static_assert(!std::is_const_v<T>, "a read-only buffer is written");
        if (unsigned char *at = touch(range, offset, sizeof(T), alignof(T), true, line)) memcpy(at, &value, sizeof(T));
    }
    void operator=(const Ref &other) const { *this = (Value)other; }
};

// The address of an element, for instructions that take addresses.
struct Address { Range *range; size_t offset; };

template <class T> struct Pointer {
    Range *range;
    Ref<T> at(size_t index, int line) const { return {*range, index * sizeof(T), line}; }
    Address operator+(size_t index) const { return {range, index * sizeof(T)}; }
};

// ---- A block of threads as fibers.

enum class State { Ready, Barrier, Warp, Phase, Done };
struct Copy { Address to; unsigned char data[16]; size_t bytes; };
struct Fiber {
    jmp_buf here; ucontext_t start; std::unique_ptr<char[]> stack; bool begun; State state;
    const char *what; int line;
    std::vector<Copy> copies; std::vector<unsigned> waited;  // phases of each barrier
};
static const size_t STACK = 1 << 20;
static std::vector<Fiber> FIBERS;
static unsigned THREADS, CURRENT;
static jmp_buf SCHEDULER;
static void (*BODY)();

__attribute__((noinline)) static void yield(State state, const char *what, int line) {
    Fiber &f = FIBERS[CURRENT];
    f.state = state, f.what = what, f.line = line;
    if (!_setjmp(f.here)) _longjmp(SCHEDULER, 1);
}

static void trampoline() {
    BODY();
    yield(State::Done, "the end", 0);
}

static void resume(unsigned thread) {
    CURRENT = thread;
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
    NOW.thread = thread;
    if (!_setjmp(SCHEDULER)) {
        Fiber &f = FIBERS[thread];
        if (f.begun) _longjmp(f.here, 1);
        f.begun = true;
        setcontext(&f.start);
    }
}

static void barrier(int line) { yield(State::Barrier, "__syncthreads", line); }

static bool release() {
    unsigned waiting = 0;
    const Fiber *first = nullptr, *other = nullptr;
    for (unsigned i = 0; i < THREADS; i++) {
        const Fiber &f = FIBERS[i];
        if (f.state == State::Barrier) waiting++;
        if (!first) first = &f;
        else if (!other && (f.state != first->state || f.line != first->line)) other = &f;
    }
    if (waiting == 0) return false;
    if (other)
        fault("not all threads come to one barrier: one waits at %s, line %d, another at %s, line %d", first->what,
              first->line, other->what, other->line);
    if (waiting != THREADS) return false;
    for (unsigned i = 0; i < THREADS; i++) FIBERS[i].state = State::Ready;
    NOW.epoch++;
    return true;
}

// ---- Warps.

struct Slot { uint32_t words[8]; const void *address; Range *range; size_t offset; };
struct Warp { Slot slots[2][32]; unsigned arrived, turn; const char *what; };
static std::vector<Warp> WARPS;

// All lanes of a warp meet; the last to come computes from, and into, what they bring.
template <class F> static Slot &meet(const char *what, const Slot &mine, F last) {
    Warp &w = WARPS[CURRENT / 32];
    unsigned turn = w.turn & 1, lane = CURRENT % 32;
    Slot &slot = w.slots[turn][lane];
    slot = mine;
    if (w.arrived && strcmp(w.what, what)) fault("lanes of a warp diverge: %s and %s", w.what, what);
    w.what = what;
    unsigned lanes = THREADS - CURRENT / 32 * 32;
    if (lanes < 32 && w.arrived == 0) fault("%s in a warp of %u threads", what, lanes);
    if (++w.arrived == (lanes < 32 ? lanes : 32)) {
        w.arrived = 0, w.turn++;
        last(w.slots[turn]);
        for (unsigned i = CURRENT / 32 * 32; i < THREADS && i < CURRENT / 32 * 32 + 32; i++) FIBERS[i].state = State::Ready;
    } else {
        yield(State::Warp, what, 0);
    }
    return slot;
}

// ---- A launch.

static std::vector<Range> GLOBALS;
static Range SHARED;

static void run_block() {
    unsigned warps = (THREADS + 31) / 32;
    WARPS.assign(warps, Warp{});
    NOW.epoch = 1;
    for (unsigned i = 0; i < THREADS; i++) {
        Fiber &f = FIBERS[i];
        f.begun = false, f.state = State::Ready, f.copies.clear(), f.waited.assign(64, 0);
        getcontext(&f.start);
        f.start.uc_stack.ss_sp = f.stack.get(), f.start.uc_stack.ss_size = STACK, f.start.uc_link = nullptr;
        makecontext(&f.start, trampoline, 0);
    }
}

static int REVERSED;
static bool phase_is_over(unsigned thread);

// Runs every thread as far as it goes; whether any went on.
static bool pass() {
    static unsigned i;
    static bool moved;
    moved = false;
    for (i = 0; i < THREADS; i++) {
        unsigned thread = REVERSED ? THREADS - 1 - i : i;
        Fiber &f = FIBERS[thread];
        if (f.state == State::Phase && phase_is_over(thread)) f.state = State::Ready;
        if (f.state == State::Ready) resume(REVERSED ? THREADS - 1 - i : i), moved = true;
    }
    return moved;
}

static void finish_block() {
    for (unsigned i = 0; i < THREADS; i++) {
        const Fiber &f = FIBERS[i];
        if (f.state != State::Done) {
            fault("threads wait for ever: one at %s, line %d", f.what, f.line);
            return;
        }
        if (!f.copies.empty()) fault("an asynchronous copy is never waited for");
    }
}

static void reset_barriers();

static int launch(const Launch *l, char *message, size_t message_bytes, void (*body)()) {
    MESSAGE = message, MESSAGE_BYTES = message_bytes, FAULTS = 0, BODY = body, REVERSED = l->reversed;
    blockDim = {l->units, 1, 1}, gridDim = {l->grid[0], l->grid[1], l->grid[2]}, THREADS = l->units;
    std::map<Memory *, std::vector<Cell>> shadows;
    GLOBALS.clear();
    for (size_t i = 0; i < l->count; i++) {
        const Arg &a = l->args[i];
        std::vector<Cell> &cells = shadows[a.memory];
        cells.resize((a.memory->bytes + GRAIN - 1) / GRAIN + 1);
        GLOBALS.push_back({a.memory->data + a.offset, a.memory->written + a.offset, cells.data() + a.offset / GRAIN,
                           a.bytes, "buffer", (int)i});
    }
    // As a driver aligns it; the bytes beyond belong to nobody.
    std::unique_ptr<unsigned char[]> memory(new unsigned char[l->shared_bytes + 1024]);
    std::vector<unsigned char> written(l->shared_bytes + 1);
    std::vector<Cell> cells(l->shared_bytes / GRAIN + 1);
    unsigned char *base = memory.get() + (1024 - (uintptr_t)memory.get() % 1024) % 1024;
    SHARED = {base, written.data(), cells.data(), l->shared_bytes, "shared memory", 0};
    if (FIBERS.size() < THREADS) FIBERS.resize(THREADS);
    // Not cleared, so that only what is used takes memory.
    for (unsigned i = 0; i < THREADS; i++)
        if (!FIBERS[i].stack) FIBERS[i].stack.reset(new char[STACK]);
    unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
    for (unsigned b = 0; b < blocks; b++) {
        unsigned block = REVERSED ? blocks - 1 - b : b;
        blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y, block / (gridDim.x * gridDim.y)};
        NOW.block = block + 1;
        std::fill(written.begin(), written.end(), 0);
        std::fill(cells.begin(), cells.end(), Cell{});
        reset_barriers();
        run_block();
        while (pass() || release()) {}
        finish_block();
    }
    return FAULTS;
}

// A part of shared memory, declared as an array of so many elements.
template <class T> static Pointer<T> shared(size_t offset, size_t elements) {
    static std::map<std::pair<size_t, size_t>, Range> parts;
    Range &part = parts[{offset, elements * sizeof(T)}];
    if (offset + elements * sizeof(T) > SHARED.bytes) fault("a shared array ends at byte %zu of %zu", offset + elements * sizeof(T), SHARED.bytes);
    part = {SHARED.data + offset, SHARED.written + offset, SHARED.cells + offset / GRAIN, elements * sizeof(T), "shared memory from", (int)offset};
    return {&part};
}

template <class T> static Pointer<T> global(size_t number) { return {&GLOBALS[number]}; }

}  // namespace host
