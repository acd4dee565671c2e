/* Makes system calls on files fail: a library that is preloaded (LD_PRELOAD) into the program under test.
 *
 * A seccomp filter turns each such call into a signal, whether libc makes it or an instruction of some other library. The
 * signal's handler makes the call in the program's stead, or fails it. Only calls on files of one folder count: how many
 * there are does not depend on the machine. `faults.rs` sets the variables that `main` reads here, and reads the log. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

/* A call: where its arguments hold a folder's descriptor and a path under it (NONE without), and the bytes that it
 * moves. A call without a path has its file's descriptor as `at`. */
enum { NONE = -1 };
struct call {
    int number;
    const char *name;
    int at, path, bytes;
};

static const struct call calls[] = {
    {SYS_open, "open", NONE, 0, NONE},
    {SYS_openat, "openat", 0, 1, NONE},
    {SYS_creat, "creat", NONE, 0, NONE},
    {SYS_stat, "stat", NONE, 0, NONE},
    {SYS_lstat, "lstat", NONE, 0, NONE},
    {SYS_fstat, "fstat", 0, NONE, NONE},
    {SYS_newfstatat, "newfstatat", 0, 1, NONE},
    {SYS_statx, "statx", 0, 1, NONE},
    {SYS_access, "access", NONE, 0, NONE},
    {SYS_readlink, "readlink", NONE, 0, NONE},
    {SYS_read, "read", 0, NONE, 2},
    {SYS_pread64, "pread64", 0, NONE, 2},
    {SYS_readv, "readv", 0, NONE, NONE},
    {SYS_getdents64, "getdents64", 0, NONE, NONE},
    {SYS_write, "write", 0, NONE, 2},
    {SYS_pwrite64, "pwrite64", 0, NONE, 2},
    {SYS_writev, "writev", 0, NONE, NONE},
    {SYS_lseek, "lseek", 0, NONE, NONE},
    {SYS_fsync, "fsync", 0, NONE, NONE},
    {SYS_fdatasync, "fdatasync", 0, NONE, NONE},
    {SYS_ftruncate, "ftruncate", 0, NONE, NONE},
    {SYS_fallocate, "fallocate", 0, NONE, 3},
    {SYS_flock, "flock", 0, NONE, NONE},
    {SYS_fchmod, "fchmod", 0, NONE, NONE},
    {SYS_close, "close", 0, NONE, NONE},
    {SYS_mkdir, "mkdir", NONE, 0, NONE},
    {SYS_mkdirat, "mkdirat", 0, 1, NONE},
    {SYS_rmdir, "rmdir", NONE, 0, NONE},
    {SYS_unlink, "unlink", NONE, 0, NONE},
    {SYS_unlinkat, "unlinkat", 0, 1, NONE},
    /* Named by what the file becomes. */
    {SYS_rename, "rename", NONE, 1, NONE},
    {SYS_renameat, "renameat", 2, 3, NONE},
    {SYS_renameat2, "renameat2", 2, 3, NONE},
    {SYS_link, "link", NONE, 1, NONE},
    {SYS_linkat, "linkat", 2, 3, NONE},
    {SYS_copy_file_range, "copy_file_range", 2, NONE, NONE},
    {SYS_sendfile, "sendfile", 0, NONE, NONE},
};
enum { CALLS = sizeof calls / sizeof *calls };

/* The folder whose files count, and where each call on them is written down. */
static char folder[PATH_MAX];
static int log_file = -1;
/* Calls so far, and the first that fails, from 1 on; whether all after it fail, too. */
static atomic_long counted;
static atomic_long failing;
static bool onwards;
/* How the call begins, and whose it is, that is the first to fail once it has come so many times: its number depends on threads. */
static const char *awaited_name, *awaited_path;
static atomic_long awaited;
/* What a failing call ends with; without one it moves half of its bytes. */
static int error;
/* Bytes that can still be written, where the disk is to become full. */
static bool is_bounded;
static atomic_long room;

/* The system call instruction that the filter lets through: after it stands `faults_call_end`. */
long faults_call(long number, long, long, long, long, long, long);
extern const char faults_call_end[];
__asm__(".text\n"
        ".type faults_call, @function\n"
        "faults_call:\n"
        "mov %rdi, %rax\n"
        "mov %rsi, %rdi\n"
        "mov %rdx, %rsi\n"
        "mov %rcx, %rdx\n"
        "mov %r8, %r10\n"
        "mov %r9, %r8\n"
        "mov 8(%rsp), %r9\n"
        "syscall\n"
        "faults_call_end:\n"
        "ret\n");

#define CALL(number, a, b, c) faults_call(number, (long)(a), (long)(b), (long)(c), 0, 0, 0)

/* Where a descriptor's file is; false where it is none of a file system. */
static bool where_is(long descriptor, char out[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", (int)descriptor);
    const char *name = (int)descriptor == AT_FDCWD ? "/proc/self/cwd" : link;
    long length = CALL(SYS_readlink, name, out, PATH_MAX - 1);
    out[length > 0 ? length : 0] = 0;
    return length > 0 && out[0] == '/';
}

/* The path of a call's file. */
static bool file_of(const struct call *call, const long args[6], char out[PATH_MAX]) {
    const char *path = call->path == NONE ? "" : (const char *)args[call->path];
    if (path == NULL)
        path = "";
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return true;
    }
    if (!where_is(call->at == NONE ? AT_FDCWD : args[call->at], out))
        return false;
    size_t length = strlen(out);
    if (path[0])
        snprintf(out + length, PATH_MAX - length, "/%s", path);
    return true;
}

/* The path within the folder; NULL for that of another. */
static const char *within(const char *path) {
    size_t length = strlen(folder);
    if (strncmp(path, folder, length) != 0 || (path[length] != '/' && path[length] != 0))
        return NULL;
    return path[length] ? path + length + 1 : ".";
}

static void note(long number, const char *name, const char *path, bool fails) {
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%c %ld %s %s\n", fails ? '!' : '.', number, name, path);
    CALL(SYS_write, log_file, line, length);
}

static long make(const struct call *call, const long args[6]) {
    return faults_call(call->number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

static bool is_write(int number) {
    return number == SYS_write || number == SYS_pwrite64 || number == SYS_fallocate;
}

/* Whether the call closes a folder: Rust's library panics where that fails, which no file system lets it. */
static bool closes_folder(const struct call *call, const long args[6]) {
    struct stat found;
    return call->number == SYS_close && CALL(SYS_fstat, args[0], &found, 0) == 0 && S_ISDIR(found.st_mode);
}

/* A call that fails. A file is closed all the same, as Linux does. */
static long fail(const struct call *call, const long args[6]) {
    if (call->number == SYS_close)
        make(call, args);
    return -error;
}

/* A call on a disk with so much room: what a write cannot put there is not written, as the kernel does it. */
static long make_bounded(const struct call *call, long args[6], bool *fails) {
    if (!is_write(call->number))
        return make(call, args);
    long bytes = args[call->bytes], left = atomic_load(&room);
    *fails = left <= 0;
    if (*fails)
        return -ENOSPC;
    /* What is reserved is another's by the time that it is given up. */
    if (call->number == SYS_fallocate)
        return make(call, args);
    args[call->bytes] = bytes < left ? bytes : left;
    atomic_fetch_sub(&room, args[call->bytes]);
    return make(call, args);
}

static bool is_awaited(const char *name, const char *path) {
    return awaited_name && awaited_path && strncmp(name, awaited_name, strlen(awaited_name)) == 0 &&
           strcmp(path, awaited_path) == 0;
}

static long intercepted(const struct call *call, long args[6]) {
    char path[PATH_MAX];
    const char *name = file_of(call, args, path) ? within(path) : NULL;
    if (name == NULL || closes_folder(call, args))
        return make(call, args);
    long number = atomic_fetch_add(&counted, 1) + 1;
    if (is_awaited(call->name, name) && atomic_fetch_sub(&awaited, 1) == 1)
        failing = number;
    bool fails = failing != 0 && (number == failing || (onwards && number > failing));
    long result;
    if (is_bounded) {
        result = make_bounded(call, args, &fails);
    } else if (!fails) {
        result = make(call, args);
    } else if (error != 0) {
        result = fail(call, args);
    } else {
        if (call->bytes != NONE && args[call->bytes] > 1)
            args[call->bytes] /= 2;
        result = make(call, args);
    }
    note(number, call->name, name, fails);
    return result;
}

static void handle(int signal, siginfo_t *info, void *context) {
    (void)signal;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    long args[6] = {registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                    registers[REG_R10], registers[REG_R8],  registers[REG_R9]};
    for (int i = 0; i < CALLS; i++)
        if (calls[i].number == info->si_syscall) {
            registers[REG_RAX] = intercepted(&calls[i], args);
            return;
        }
}

/* Every call of the table traps, unless it is made by `faults_call`. */
static bool install(void) {
    enum { HEAD = 8 };
    struct sock_filter filter[HEAD + CALLS + 2];
    uint64_t end = (uint64_t)faults_call_end;
    const uint32_t address = offsetof(struct seccomp_data, instruction_pointer);
    int at = 0;
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, HEAD + CALLS - 2);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, address);
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)end, 0, 3);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, address + 4);
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(end >> 32), 0, 1);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < CALLS; i++)
        filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, CALLS - i, 0);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    struct sock_fprog program = {.len = at, .filter = filter};
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO};
    return sigaction(SIGSYS, &action, NULL) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static long number_in(const char *variable) {
    const char *text = getenv(variable);
    return text ? strtol(text, NULL, 10) : 0;
}

__attribute__((constructor)) static void begin(void) {
    const char *under = getenv("FAULTS_UNDER"), *log = getenv("FAULTS_LOG");
    if (under == NULL || log == NULL)
        return;
    snprintf(folder, sizeof folder, "%s", under);
    log_file = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    failing = number_in("FAULTS_AT");
    onwards = number_in("FAULTS_ONWARDS") != 0;
    awaited_name = getenv("FAULTS_NAME");
    awaited_path = getenv("FAULTS_PATH");
    awaited = number_in("FAULTS_NTH");
    error = (int)number_in("FAULTS_ERRNO");
    is_bounded = getenv("FAULTS_ROOM") != NULL;
    room = number_in("FAULTS_ROOM");
    if (log_file < 0 || !install()) {
        fprintf(stderr, "faults: no filter of system calls can be installed here: %s\n", strerror(errno));
        _exit(99);
    }
}
