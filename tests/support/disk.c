/*
 * A disk that keeps a diary. Preloaded into a process (LD_PRELOAD), it writes down what the process does to the files below $DISK_ROOT,
 * in the order in which it happens: writes with their bytes, names that come and go, and from when to when each sync lasted. What would be
 * on the disk after a cut of its power at any moment can be told from that; disk.rs does it.
 *
 * While the file $DISK_STALLS exists nothing that is done to those files returns: a disk that hangs.
 *
 * One lock over all makes the diary's order the true one. A record is written when its operation is done, so that one that failed leaves
 * none; the two records of a sync stand before and after it. Copies inside the kernel are refused, and the standard library copies by hand.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CREATE = 1, MAKE_DIR, RENAME, REMOVE, LINK, WRITE, SET_LENGTH, SYNC_BEGINS, SYNC_ENDS };

struct record {
    uint64_t what;
    uint64_t at;     /* ns since 1970 */
    uint64_t file;   /* inode; of a directory 0 */
    uint64_t number; /* offset, length or ticket */
    uint64_t length; /* of what follows: bytes, or paths that end with 0 */
};

static char root[PATH_MAX], stalls[PATH_MAX];
static size_t root_length;
static int diary = -1;
static uint64_t tickets;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    const char *dir = getenv("DISK_ROOT"), *file = getenv("DISK_DIARY"), *stall = getenv("DISK_STALLS");
    if (!dir || !file || !stall) return;
    snprintf(root, sizeof root, "%s", dir);
    snprintf(stalls, sizeof stalls, "%s", stall);
    root_length = strlen(root);
    diary = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (diary < 0) {
        perror(file);
        _exit(99);
    }
}

static int is_below(const char *path) {
    return diary >= 0 && !strncmp(path, root, root_length) && (path[root_length] == '/' || path[root_length] == 0);
}

/* The path of an open file. */
static void path_of(int fd, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
}

static void resolve(int dir, const char *name, char path[PATH_MAX]) {
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return;
    }
    if (dir != AT_FDCWD) path_of(dir, path);
    else if (!getcwd(path, PATH_MAX)) path[0] = 0;
    size_t length = strlen(path);
    snprintf(path + length, PATH_MAX - length, "/%s", name);
}

/* Whether it is one of the files (or directories) that are watched. */
static int is_watched(int fd, struct stat *st) {
    char path[PATH_MAX];
    if (diary < 0 || fd == diary || fstat(fd, st) || !(S_ISREG(st->st_mode) || S_ISDIR(st->st_mode))) return 0;
    path_of(fd, path);
    return is_below(path);
}

static void note(uint64_t what, uint64_t file, uint64_t number, const void *bytes, size_t length) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct record record = { what, now.tv_sec * 1000000000ull + now.tv_nsec, file, number, length };
    struct iovec parts[] = { { &record, sizeof record }, { (void *)bytes, length } };
    if (syscall(SYS_writev, diary, parts, 2) != (ssize_t)(sizeof record + length)) {
        dprintf(2, "the disk's diary can't be written\n");
        _exit(99);
    }
}

static void note_paths(uint64_t what, uint64_t file, const char *one, const char *two) {
    char paths[2 * PATH_MAX];
    int length = snprintf(paths, PATH_MAX, "%s", one) + 1;
    if (two) length += snprintf(paths + length, PATH_MAX, "%s", two) + 1;
    note(what, file, 0, paths, length);
}

static void enter(void) {
    while (!access(stalls, F_OK)) usleep(1000);
    pthread_mutex_lock(&lock);
}

static long leave(long result) {
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

/* ---- names */
static int open_at(int dir, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    resolve(dir, name, path);
    if (!is_below(path) || !(flags & (O_CREAT | O_TRUNC))) return syscall(SYS_openat, dir, name, flags, mode);
    enter();
    int is_new = access(path, F_OK) != 0;
    int fd = syscall(SYS_openat, dir, name, flags, mode);
    struct stat st;
    if (fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode)) {
        if (is_new) note_paths(CREATE, st.st_ino, path, NULL);
        else if (flags & O_TRUNC) note(SET_LENGTH, st.st_ino, 0, NULL, 0);
    }
    return leave(fd);
}

#define MODE(flags)                                                  \
    mode_t mode = 0;                                                 \
    if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) {     \
        va_list more;                                                \
        va_start(more, flags);                                       \
        mode = va_arg(more, mode_t);                                 \
        va_end(more);                                                \
    }

int open(const char *name, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, name, flags, mode); }
int openat(int dir, const char *name, int flags, ...) { MODE(flags) return open_at(dir, name, flags, mode); }
int openat64(int dir, const char *name, int flags, ...) { MODE(flags) return open_at(dir, name, flags, mode); }

int mkdirat(int dir, const char *name, mode_t mode) {
    char path[PATH_MAX];
    resolve(dir, name, path);
    if (!is_below(path)) return syscall(SYS_mkdirat, dir, name, mode);
    enter();
    int result = syscall(SYS_mkdirat, dir, name, mode);
    if (!result) note_paths(MAKE_DIR, 0, path, NULL);
    return leave(result);
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int unlinkat(int dir, const char *name, int flags) {
    char path[PATH_MAX];
    resolve(dir, name, path);
    if (!is_below(path)) return syscall(SYS_unlinkat, dir, name, flags);
    enter();
    int result = syscall(SYS_unlinkat, dir, name, flags);
    if (!result) note_paths(REMOVE, 0, path, NULL);
    return leave(result);
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char one[PATH_MAX], two[PATH_MAX];
    resolve(from_dir, from, one);
    resolve(to_dir, to, two);
    if (!is_below(one) && !is_below(two)) return syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    enter();
    int result = syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (!result) note_paths(RENAME, 0, one, two);
    return leave(result);
}
int renameat(int from_dir, const char *from, int to_dir, const char *to) { return renameat2(from_dir, from, to_dir, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char one[PATH_MAX], two[PATH_MAX];
    resolve(from_dir, from, one);
    resolve(to_dir, to, two);
    if (!is_below(two)) return syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
    enter();
    int result = syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
    if (!result) note_paths(LINK, 0, one, two);
    return leave(result);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

/* ---- bytes */
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    struct stat st;
    if (!is_watched(fd, &st)) return syscall(SYS_pwrite64, fd, bytes, length, offset);
    enter();
    ssize_t written = syscall(SYS_pwrite64, fd, bytes, length, offset);
    if (written > 0) note(WRITE, st.st_ino, offset, bytes, written);
    return leave(written);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) { return pwrite(fd, bytes, length, offset); }

ssize_t write(int fd, const void *bytes, size_t length) {
    struct stat st;
    if (!is_watched(fd, &st)) return syscall(SYS_write, fd, bytes, length);
    enter();
    ssize_t written = syscall(SYS_write, fd, bytes, length);
    /* Asked afterwards: that is right for O_APPEND too. */
    if (written > 0) note(WRITE, st.st_ino, lseek(fd, 0, SEEK_CUR) - written, bytes, written);
    return leave(written);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    struct stat st;
    if (!is_watched(fd, &st)) return syscall(SYS_writev, fd, parts, count);
    /* The rest is what the caller comes back with. */
    for (; count > 1 && !parts->iov_len; count--) parts++;
    return count ? write(fd, parts->iov_base, parts->iov_len) : 0;
}

int ftruncate(int fd, off_t length) {
    struct stat st;
    if (!is_watched(fd, &st)) return syscall(SYS_ftruncate, fd, length);
    enter();
    int result = syscall(SYS_ftruncate, fd, length);
    if (!result) note(SET_LENGTH, st.st_ino, length, NULL, 0);
    return leave(result);
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

static ssize_t refuse(int fd) {
    struct stat st;
    errno = ENOSYS;
    return is_watched(fd, &st) ? -1 : 0;
}
ssize_t copy_file_range(int from, off_t *from_at, int to, off_t *to_at, size_t length, unsigned flags) {
    return refuse(to) ? -1 : syscall(SYS_copy_file_range, from, from_at, to, to_at, length, flags);
}
ssize_t sendfile(int to, int from, off_t *at, size_t length) { return refuse(to) ? -1 : syscall(SYS_sendfile, to, from, at, length); }
ssize_t sendfile64(int to, int from, off_t *at, size_t length) { return sendfile(to, from, at, length); }

/* ---- syncs */
static int sync_with(long call, int fd) {
    struct stat st;
    if (!is_watched(fd, &st)) return syscall(call, fd);
    enter();
    uint64_t ticket = ++tickets;
    if (S_ISDIR(st.st_mode)) {
        char path[PATH_MAX];
        path_of(fd, path);
        note(SYNC_BEGINS, 0, ticket, path, strlen(path) + 1);
    } else {
        note(SYNC_BEGINS, st.st_ino, ticket, NULL, 0);
    }
    leave(0);
    int result = syscall(call, fd);
    enter();
    if (!result) note(SYNC_ENDS, 0, ticket, NULL, 0);
    return leave(result);
}
int fsync(int fd) { return sync_with(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_with(SYS_fdatasync, fd); }
