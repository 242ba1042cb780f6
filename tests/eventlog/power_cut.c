/* Simulates a power cut for files whose path begins with CUT_DIR (LD_PRELOAD).
 *
 * Writes and truncations are kept in a journal until fsync or fdatasync of their file. At the
 * write number CUT_AT everything unsynced is undone, then a random part of the unsynced writes
 * (seed CUT_SEED) is done again, as a disk may have done some of them in any order; and the
 * process dies. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define MAX_FD 1024
#define MAX_PATHS 64

struct entry {
    int path;
    int is_write;
    off_t at, old_size, size;
    size_t length, old_length;
    char *old_bytes, *new_bytes;
    struct entry *newer, *older;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *paths[MAX_PATHS];
static int path_of[MAX_FD]; /* 1 + index, 0: not ours */
static struct entry *newest, *oldest;
static long writes;

#define REAL(result, name, ...) \
    static result (*real_##name)(__VA_ARGS__); \
    if (!real_##name) real_##name = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static void follow(int fd, const char *path) {
    const char *dir = getenv("CUT_DIR");
    size_t length = strlen(path);
    if (fd < 0 || fd >= MAX_FD || !dir || strncmp(path, dir, strlen(dir)) != 0) return;
    /* The WAL index is shared memory, not data: a reboot begins without it. */
    if (length > 4 && strcmp(path + length - 4, "-shm") == 0) return;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_PATHS; i++) {
        if (!paths[i]) paths[i] = strdup(path);
        if (strcmp(paths[i], path) == 0) { path_of[fd] = i + 1; break; }
    }
    pthread_mutex_unlock(&lock);
}

static void forget(struct entry *e) {
    if (e->newer) e->newer->older = e->older; else newest = e->older;
    if (e->older) e->older->newer = e->newer; else oldest = e->newer;
    free(e->old_bytes); free(e->new_bytes); free(e);
}

static void synced(int fd) {
    if (fd < 0 || fd >= MAX_FD || !path_of[fd]) return;
    pthread_mutex_lock(&lock);
    for (struct entry *e = newest, *older; e; e = older) {
        older = e->older;
        if (e->path == path_of[fd]) forget(e);
    }
    pthread_mutex_unlock(&lock);
}

static void cut(void) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    REAL(int, ftruncate64, int, off64_t);
    REAL(int, open64, const char *, int, ...);
    srand(atoi(getenv("CUT_SEED")));
    int fds[MAX_PATHS + 1] = {0};
    for (int i = 0; i < MAX_PATHS && paths[i]; i++) fds[i + 1] = real_open64(paths[i], O_RDWR) + 1;
    for (struct entry *e = newest; e; e = e->older) {
        int fd = fds[e->path] - 1;
        if (fd < 0) continue;
        real_ftruncate64(fd, e->old_size);
        if (e->old_length) real_pwrite64(fd, e->old_bytes, e->old_length, e->at);
    }
    for (struct entry *e = oldest; e; e = e->newer) {
        int fd = fds[e->path] - 1;
        if (fd < 0 || rand() % 3) continue;
        if (e->is_write) real_pwrite64(fd, e->new_bytes, e->length, e->at);
        else real_ftruncate64(fd, e->size);
    }
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Called with the lock held, before the change is made. */
static void note(int fd, off_t at, const void *bytes, size_t length, off_t size) {
    REAL(ssize_t, pread64, int, void *, size_t, off64_t);
    struct stat st;
    struct entry *e = calloc(1, sizeof *e);
    fstat(fd, &st);
    e->path = path_of[fd]; e->at = at; e->old_size = st.st_size; e->size = size;
    e->is_write = bytes != NULL;
    e->length = length;
    size_t old = bytes ? length : (size < st.st_size ? (size_t)(st.st_size - size) : 0);
    e->old_bytes = malloc(old + 1);
    ssize_t got = old ? real_pread64(fd, e->old_bytes, old, at) : 0;
    e->old_length = got > 0 ? (size_t)got : 0;
    if (bytes) { e->new_bytes = malloc(length + 1); memcpy(e->new_bytes, bytes, length); }
    e->older = newest;
    if (newest) newest->newer = e; else oldest = e;
    newest = e;
}

static int ours(int fd) { return fd >= 0 && fd < MAX_FD && path_of[fd]; }

static void count_write(void) {
    const char *at = getenv("CUT_AT");
    if (at && ++writes == atol(at)) cut();
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    if (!ours(fd)) return real_pwrite64(fd, bytes, length, at);
    pthread_mutex_lock(&lock);
    note(fd, at, bytes, length, 0);
    ssize_t done = real_pwrite64(fd, bytes, length, at);
    count_write();
    pthread_mutex_unlock(&lock);
    return done;
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return pwrite64(fd, bytes, length, at); }

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (!ours(fd)) return real_write(fd, bytes, length);
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t done = pwrite64(fd, bytes, length, at);
    if (done > 0) lseek(fd, at + done, SEEK_SET);
    return done;
}

int ftruncate64(int fd, off64_t size) {
    REAL(int, ftruncate64, int, off64_t);
    if (!ours(fd)) return real_ftruncate64(fd, size);
    pthread_mutex_lock(&lock);
    note(fd, size, NULL, 0, size);
    int done = real_ftruncate64(fd, size);
    pthread_mutex_unlock(&lock);
    return done;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

/* The journal stands for the disk: nothing needs to wait for the real one. */
int fsync(int fd) {
    REAL(int, fsync, int);
    if (!ours(fd)) return real_fsync(fd);
    synced(fd);
    return 0;
}
int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    if (!ours(fd)) return real_fdatasync(fd);
    synced(fd);
    return 0;
}

int close(int fd) {
    REAL(int, close, int);
    if (fd >= 0 && fd < MAX_FD) path_of[fd] = 0;
    return real_close(fd);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, name, const char *, int, ...); \
        va_list args; \
        va_start(args, flags); \
        int mode = va_arg(args, int); \
        va_end(args); \
        int fd = real_##name(path, flags, mode); \
        follow(fd, path); \
        return fd; \
    }
OPEN(open)
OPEN(open64)
