// The instructions that CubeCL reaches through PTX or CUDA's library: bfloat16, asynchronous copies and their
// barriers, and what warps do together. As cuda_on_cpu.h says, they are carried out and watched.
#pragma once
#include "cuda_on_cpu.h"

#define __global__
#define __device__
#define __shared__
#define __grid_constant__
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
static const unsigned warpSize = 32;
#define __syncthreads() host::barrier(__LINE__)
#define __syncwarp() host::meet("__syncwarp", {}, [](host::Slot *) {})

static float max(float a, float b) { return fmaxf(a, b); }
static float min(float a, float b) { return fminf(a, b); }
static int max(int a, int b) { return a > b ? a : b; }
static int min(int a, int b) { return a < b ? a : b; }
static unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
static unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
static float exp(float x) { return expf(x); }
static float log(float x) { return logf(x); }
static float sqrt(float x) { return sqrtf(x); }
static float tanh(float x) { return tanhf(x); }
static float rint(float x) { return rintf(x); }
static float abs(float x) { return fabsf(x); }
static bool isnan(float x) { return x != x; }
static float rsqrt(float x) { return 1.0f / sqrtf(x); }
static float exp2(float x) { return exp2f(x); }
static float fma(float a, float b, float c) { return fmaf(a, b, c); }

// To nearest, ties to even, as the hardware.
struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float x) {
        uint32_t u;
        memcpy(&u, &x, 4);
        bits = x != x ? 0x7fff : (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    }
    operator float() const {
        uint32_t u = (uint32_t)bits << 16;
        float x;
        memcpy(&x, &u, 4);
        return x;
    }
};
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
static __nv_bfloat16 __float2bfloat16(float x) { return x; }
static float __bfloat162float(__nv_bfloat16 x) { return x; }

namespace host {

static float half(uint32_t word, bool high) {
    __nv_bfloat16 x;
    x.bits = high ? word >> 16 : word & 0xffff;
    return x;
}

// ldmatrix: lane 8·i + r brings the address of row r of matrix i; each lane gets two elements of each row.
template <bool Transposed, class... R> static void load_matrices(Address mine, R &...registers) {
    const unsigned count = sizeof...(R);
    Slot slot{};
    slot.range = mine.range, slot.offset = mine.offset;
    Slot &result = meet("ldmatrix", slot, [&](Slot *slots) {
        uint16_t rows[32][8] = {};
        unsigned thread = NOW.thread;
        for (unsigned i = 0; i < 8 * count; i++) {
            NOW.thread = thread / 32 * 32 + i;
            if (auto at = touch(*slots[i].range, slots[i].offset, 16, 16, false, 0)) memcpy(rows[i], at, 16);
        }
        NOW.thread = thread;
        for (unsigned lane = 0; lane < 32; lane++)
            for (unsigned m = 0; m < count; m++)
                for (unsigned e = 0; e < 2; e++) {
                    unsigned row = lane / 4, column = 2 * (lane % 4) + e;
                    uint32_t x = Transposed ? rows[8 * m + column][row] : rows[8 * m + row][column];
                    slots[lane].words[m] = e ? slots[lane].words[m] | x << 16 : x;
                }
    });
    unsigned m = 0;
    ((registers = result.words[m++]), ...);
}

// stmatrix: the same the other way round.
template <class... R> static void store_matrices(Address mine, const R &...registers) {
    const unsigned count = sizeof...(R);
    Slot slot{{registers...}};
    slot.range = mine.range, slot.offset = mine.offset;
    meet("stmatrix", slot, [](Slot *slots) {
        unsigned thread = NOW.thread;
        for (unsigned i = 0; i < 8 * count; i++) {
            uint16_t row[8];
            for (unsigned column = 0; column < 8; column++) {
                uint32_t x = slots[i % 8 * 4 + column / 2].words[i / 8];
                row[column] = column & 1 ? x >> 16 : x & 0xffff;
            }
            NOW.thread = thread / 32 * 32 + i;
            if (auto at = touch(*slots[i].range, slots[i].offset, 16, 16, true, 0)) memcpy(at, row, 16);
        }
        NOW.thread = thread;
    });
}

// mma.m16n8k16 of bfloat16 into float32. Products are exact in float32; the sum is in order of k.
static void multiply(const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4], float *(&d)[4]) {
    Slot slot{};
    memcpy(slot.words, a, 16), memcpy(slot.words + 4, b, 8);
    Slot &result = meet("mma", slot, [](Slot *slots) {
        float x[16][16], y[16][8];
        for (unsigned i = 0; i < 16; i++)
            for (unsigned k = 0; k < 16; k++)
                x[i][k] = half(slots[i % 8 * 4 + k % 8 / 2].words[(i >= 8) + 2 * (k >= 8)], k & 1);
        for (unsigned k = 0; k < 16; k++)
            for (unsigned j = 0; j < 8; j++) y[k][j] = half(slots[j * 4 + k % 8 / 2].words[4 + (k >= 8)], k & 1);
        for (unsigned lane = 0; lane < 32; lane++) {
            float sums[4];
            for (unsigned e = 0; e < 4; e++) {
                unsigned i = lane / 4 + (e >= 2 ? 8 : 0), j = 2 * (lane % 4) + (e & 1);
                sums[e] = 0;
                for (unsigned k = 0; k < 16; k++) sums[e] += x[i][k] * y[k][j];
            }
            memcpy(slots[lane].words, sums, 16);
        }
    });
    float sums[4];
    memcpy(sums, result.words, 16);
    for (unsigned e = 0; e < 4; e++) *d[e] = c[e] + sums[e];
}

template <class T> static T exchange(const char *what, T value, unsigned from) {
    static_assert(sizeof(T) == 4, "a word");
    Slot slot{};
    memcpy(slot.words, &value, 4);
    slot.words[1] = from;
    Slot &result = meet(what, slot, [](Slot *slots) {
        for (unsigned lane = 0; lane < 32; lane++) slots[lane].words[2] = slots[slots[lane].words[1] % 32].words[0];
    });
    memcpy(&value, result.words + 2, 4);
    return value;
}

// A barrier in shared memory: a phase is over once all have arrived, and what was copied before lands when
// somebody waits for it.
struct Phases { bool live; unsigned count, pending, phase; std::vector<Copy> copies[2]; };
static Phases PHASES[64];
static struct { unsigned barrier, phase; } AWAITED[1024];

static void reset_barriers() {
    for (Phases &p : PHASES) p.live = false, p.copies[0].clear(), p.copies[1].clear();
}
static bool has_waited(unsigned barrier, unsigned phase) { return FIBERS[CURRENT].waited[barrier] > phase; }
static bool phase_is_over(unsigned thread) { return PHASES[AWAITED[thread].barrier].phase > AWAITED[thread].phase; }

static void land(unsigned barrier, unsigned phase) {
    for (Copy &c : PHASES[barrier].copies[phase & 1]) {
        memcpy(c.to.range->data + c.to.offset, c.data, c.bytes);
        for (size_t i = 0; i < c.bytes; i++) c.to.range->written[c.to.offset + i] = 1;
        for (size_t i = 0; i < c.bytes; i += GRAIN) {
            Cell &cell = c.to.range->cells[(c.to.offset + i) / GRAIN];
            cell.flight = false, cell.write = {NOW.block, COPIED, NOW.epoch};
            cell.barrier = barrier, cell.phase = phase;
        }
    }
    PHASES[barrier].copies[phase & 1].clear();
}

static void wait(unsigned barrier, unsigned phase) {
    if (PHASES[barrier].phase <= phase) {
        AWAITED[CURRENT] = {barrier, phase};
        yield(State::Phase, "a barrier's phase", 0);
    }
    land(barrier, phase);
    unsigned &waited = FIBERS[CURRENT].waited[barrier];
    if (waited < phase + 1) waited = phase + 1;
}

// cp.async: the source is read now, the destination changes when it is waited for.
template <size_t Bytes> static void copy(Address from, Address to, size_t bytes) {
    Copy c{to, {}, Bytes};
    if (bytes > Bytes) return fault("an asynchronous copy of %zu bytes into %zu", bytes, Bytes);
    if (bytes)
        if (auto at = touch(*from.range, from.offset, bytes, Bytes, false, 0)) memcpy(c.data, at, bytes);
    if (!touch(*to.range, to.offset, Bytes, Bytes, true, 0)) return;
    memset(to.range->written + to.offset, 0, Bytes);
    for (size_t i = 0; i < Bytes; i += GRAIN) to.range->cells[(to.offset + i) / GRAIN].flight = true;
    FIBERS[CURRENT].copies.push_back(c);
}

}  // namespace host

template <size_t Bytes> static void __cp_async_shared_global(host::Address from, host::Address to) { host::copy<Bytes>(from, to, Bytes); }
template <size_t Bytes> static void __cp_async_shared_global(host::Address from, host::Address to, int bytes) { host::copy<Bytes>(from, to, (size_t)bytes); }

namespace cuda {
enum thread_scope { thread_scope_thread, thread_scope_block };
template <thread_scope> struct barrier {
    using arrival_token = unsigned;
    unsigned number;
    arrival_token arrive() {
        host::Phases &p = host::PHASES[number];
        if (!p.live) host::fault("a barrier is used before it is initialised");
        unsigned phase = p.phase;
        if (--p.pending == 0) p.pending = p.count, p.phase++;
        return phase;
    }
    void wait(arrival_token &&token) { host::wait(number, token); }
    void wait_parity(bool parity) {
        host::Phases &p = host::PHASES[number];
        // The phase of that parity which is under way or was the last to end.
        unsigned phase = (p.phase & 1) == parity ? p.phase : p.phase - 1;
        host::wait(number, phase);
    }
    void arrive_and_wait() { wait(arrive()); }
};
template <thread_scope S> static void init(barrier<S> *b, unsigned count) {
    host::Phases &p = host::PHASES[b->number];
    p.live = true, p.count = count, p.pending = count, p.phase = 0;
    p.copies[0].clear(), p.copies[1].clear();
}
}  // namespace cuda
using cuda::init;
namespace host {
// The barrier at an offset of shared memory; what CUDA keeps there is kept aside.
static cuda::barrier<cuda::thread_scope_block> &shared_barrier(size_t offset) {
    static cuda::barrier<cuda::thread_scope_block> all[64];
    if (offset % 8 || offset + 8 > SHARED.bytes) fault("a barrier at byte %zu of shared memory", offset);
    all[offset / 8 % 64].number = offset / 8 % 64;
    return all[offset / 8 % 64];
}
}  // namespace host
namespace cooperative_groups {
struct thread_block {};
static thread_block this_thread_block() { return {}; }
}

// Does not count as an arrival; what this thread has copied so far belongs to the phase under way.
template <class B> static void __cp_async_arrive(B &b) {
    auto &mine = host::FIBERS[host::CURRENT].copies;
    auto &phase = host::PHASES[b.number].copies[host::PHASES[b.number].phase & 1];
    phase.insert(phase.end(), mine.begin(), mine.end());
    mine.clear();
}

template <class T> static T __shfl_xor_sync(unsigned, T x, unsigned mask) { return host::exchange("__shfl_xor_sync", x, host::CURRENT % 32 ^ mask); }
template <class T> static T __shfl_sync(unsigned, T x, unsigned lane) { return host::exchange("__shfl_sync", x, lane); }
template <class T> static T __shfl_down_sync(unsigned, T x, unsigned by) { unsigned lane = host::CURRENT % 32; return host::exchange("__shfl_down_sync", x, lane + by < 32 ? lane + by : lane); }
template <class T> static T __shfl_up_sync(unsigned, T x, unsigned by) { unsigned lane = host::CURRENT % 32; return host::exchange("__shfl_up_sync", x, lane >= by ? lane - by : lane); }

static void __mma_m16n8k16___nv_bfloat16___nv_bfloat16_float(uint32_t const &a0, uint32_t const &a1, uint32_t const &a2, uint32_t const &a3, uint32_t const &b0, uint32_t const &b1, float const &c0, float const &c1, float const &c2, float const &c3, float &d0, float &d1, float &d2, float &d3) {
    const uint32_t a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    const float c[4] = {c0, c1, c2, c3};
    float *d[4] = {&d0, &d1, &d2, &d3};
    host::multiply(a, b, c, d);
}
static void __ldmatrix_m8n8___nv_bfloat16_1x(uint32_t &a, host::Address p) { host::load_matrices<false>(p, a); }
static void __ldmatrix_m8n8___nv_bfloat16_2x(uint32_t &a, uint32_t &b, host::Address p) { host::load_matrices<false>(p, a, b); }
static void __ldmatrix_m8n8___nv_bfloat16_4x(uint32_t &a, uint32_t &b, uint32_t &c, uint32_t &d, host::Address p) { host::load_matrices<false>(p, a, b, c, d); }
static void __ldmatrix_m8n8___nv_bfloat16_1x_trans(uint32_t &a, host::Address p) { host::load_matrices<true>(p, a); }
static void __ldmatrix_m8n8___nv_bfloat16_2x_trans(uint32_t &a, uint32_t &b, host::Address p) { host::load_matrices<true>(p, a, b); }
static void __ldmatrix_m8n8___nv_bfloat16_4x_trans(uint32_t &a, uint32_t &b, uint32_t &c, uint32_t &d, host::Address p) { host::load_matrices<true>(p, a, b, c, d); }
static void __stmatrix_m8n8___nv_bfloat16_4x(uint32_t const &a, uint32_t const &b, uint32_t const &c, uint32_t const &d, host::Address p) { host::store_matrices(p, a, b, c, d); }
