// files.h: the one writer and the one reader of the engine.
//
// Written is in two ways. A file that is whole or not there (aside_*): PATH.tmp, flushed to disk, renamed into place.
// A file that grows (append_*: a cache, a log): a block at a time, all of it or nothing, so that only a last line can
// ever be torn. A full disk shows at write, flush or fsync: each is checked, and the stream's own error before anything
// is called whole, for a stream forgets the bytes it could not write and goes on. Read is by lines_next or file_read:
// neither takes an error, or memory that ran out, for the end of a file.
//
// What is being written is locked (flock) until it is in place, so two runs cannot share an --out; the system lets go
// of the lock whenever and however a run ends, and no file stands for it. When the program ends it removes what it had
// not finished and the folders it made and put nothing into: by exact names, and never through a link.
#pragma once
#include "process.h"
#include <dirent.h>
#include <sys/file.h>
#include <sys/stat.h>

typedef struct AsideFile { FILE *f; char *path, *tmp; struct AsideFile *next; } AsideFile;
AsideFile *aside_open(const char *path);   // locks it; dies when it cannot be written
void aside_commit(AsideFile *a);           // flush, fsync, rename; frees a
void file_flush(FILE *f, const char *path, bool to_disk); // dies when this or any earlier write to f failed

typedef struct { int fd; char *path; size_t whole; } Append; // whole: bytes that are there
void append_open(Append *a, const char *path); // locks it; made when it is not there, removed again if it stays empty
void append_cut(Append *a, size_t whole);      // back to so many bytes
void append_write(Append *a, const char *data, size_t n); // all or nothing: dies when it cannot be written
void append_close(Append *a);

// the line, its length, a 0 behind it
typedef struct { const char *path; FILE *f; size_t line, cap, n; char *buffer; } Lines;
// false: there is no such file. pipes: a pipe is good too, for what is read once from its beginning to its end
bool lines_open(Lines *in, const char *path, bool pipes);
bool lines_next(Lines *in);                   // false: the end
void lines_close(Lines *in);
char *file_read(const char *path, size_t *n); // malloc'd, a 0 behind it; NULL: there is no such file
uint64_t file_fingerprint(const char *path);
bool exists(const char *path);                // false is certain: any other trouble dies
bool is_folder(const char *path);
bool remove_file(const char *path);        // false: it was not there

void make_folder(const char *path);        // and its parents
void out_folder(const char *path);         // the same, locked until the program ends; dies when it cannot be written
void sync_folder(const char *path);
void sync_file(const char *path);          // to the disk, where there is one
// What is ours in it, and it if nothing is left, never through a link. The first dies when that fails, the other is
// false.
void remove_folder(const char *path, bool (*ours)(const char *name));
bool folder_removed(const char *path, bool (*ours)(const char *name));

#ifdef VBON_IMPLEMENTATION

// ----------------------------------------------------------------------------
// what is left and what is locked

// Too long too: it is asked of a --reward that may be a command.
static bool absent(void) { return errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG; }

static bool look(const char *path, struct stat *st) // false is certain: other errors than that die
{
    if (!stat(path, st)) return true;
    if (!absent()) die("%s: cannot be looked at: %s", path, strerror(errno));
    return false;
}
static const char *kind(const struct stat *st)
{
    mode_t m = st->st_mode;
    return S_ISREG(m) ? "file" : S_ISDIR(m) ? "folder" : S_ISFIFO(m) || S_ISSOCK(m) ? "pipe" : "device";
}
// Before a path is written: by one way of writing a link to nothing would be replaced, by another it would be followed.
static void no_dead_link(const char *path)
{
    struct stat st;
    if (!look(path, &st) && !lstat(path, &st) && S_ISLNK(st.st_mode))
        die("%s: is a link to nothing: make what it points to, remove the link, or name another --out", path);
}
static void must_be_file(const char *path)
{
    struct stat st;
    if (!*path) die("--out: an empty name");
    no_dead_link(path);
    if (look(path, &st) && !S_ISREG(st.st_mode)) die("%s: cannot be written: it is a %s: name a file", path, kind(&st));
}
bool exists(const char *path) { struct stat st; return look(path, &st); }
bool is_folder(const char *path) { struct stat st; return look(path, &st) && S_ISDIR(st.st_mode); }

// Folders and growing files that this program made, in order: what is still empty at the end goes again.
static char **made_paths;
static void remove_made(void)
{
    struct stat st;
    for (size_t i = arrlenu(made_paths); i > 0; i--) {
        const char *path = made_paths[i - 1];
        if (rmdir(path) && !lstat(path, &st) && S_ISREG(st.st_mode) && !st.st_size) unlink(path);
    }
}
static void made_here(const char *path) { clean_at_end(remove_made); arrput(made_paths, xstrdup(path)); }

static void lock(int fd, const char *path)
{
    if (!flock(fd, LOCK_EX | LOCK_NB)) return;
    if (errno == EWOULDBLOCK) die("%s: another run is writing it: wait for its end, or name another --out", path);
    bool no_locks = errno == ENOTSUP || errno == ENOSYS || errno == ENOLCK || errno == EBADF; // that: NFS
    if (!no_locks) die("%s: cannot be locked: %s", path, strerror(errno));
    static bool said;
    if (!said) fprintf(stderr, "vbon: note: %s: this file system has no locks: start no second run there\n", path);
    said = true;
}

// A file that grows is locked by its name, one that is written aside by PATH.tmp: either keeps off the other kind.
static void nobody_writes(const char *held, const char *path)
{
    int fd = open(held, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0) { lock(fd, path); close(fd); }
}

// ----------------------------------------------------------------------------
// writing

NORETURN static void not_written(const char *path) // errno says why
{
    const char *end = strrchr(path, '/');
    if (errno == ENOENT && end)
        die("%s: cannot be written: there is no folder %.*s: make it", path, (int)(end - path), path);
    die("%s: cannot be written: %s", path, strerror(errno));
}

static AsideFile *open_asides;
static void remove_asides(void) { for (AsideFile *a = open_asides; a; a = a->next) unlink(a->tmp); }

AsideFile *aside_open(const char *path)
{
    struct stat st, now;
    must_be_file(path);
    nobody_writes(path, path); // as a cache
    AsideFile *a = (AsideFile *)xcalloc(1, sizeof *a);
    a->path = xstrdup(path);
    a->tmp = format("%s.tmp", path);
    for (;;) { // until it is locked and still the file of that name: a run that ended just now may have put it in place
        int fd = open(a->tmp, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
        if (fd < 0 && errno == ELOOP) die("%s: is a link: remove it, it stands where %s is written", a->tmp, path);
        if (fd < 0 || fstat(fd, &st)) not_written(path);
        bool own = S_ISREG(st.st_mode) && st.st_nlink == 1;
        if (!own) die("%s: is no file of this program: remove it, it stands where %s is written", a->tmp, path);
        lock(fd, path);
        if (lstat(a->tmp, &now) || now.st_ino != st.st_ino || now.st_dev != st.st_dev) { close(fd); continue; }
        a->next = open_asides;
        open_asides = a;
        clean_at_end(remove_asides);
        if (ftruncate(fd, 0) || !(a->f = fdopen(fd, "wb"))) die("%s: cannot be written: %s", path, strerror(errno));
        return a;
    }
}

void file_flush(FILE *f, const char *path, bool to_disk)
{
    errno = 0;
    bool bad = fflush(f) != 0 || (to_disk && fsync(fileno(f)) != 0);
    if (bad || ferror(f)) die("%s: cannot be written: %s", path, errno ? strerror(errno) : "an earlier write failed");
}

void aside_commit(AsideFile *a)
{
    file_flush(a->f, a->path, true);
    if (rename(a->tmp, a->path)) die("%s: cannot be renamed into place: %s", a->path, strerror(errno));
    for (AsideFile **p = &open_asides; *p; p = &(*p)->next)
        if (*p == a) { *p = a->next; break; }
    fclose(a->f); // and unlocks; everything is on the disk already
    free(a->path); free(a->tmp); free(a);
}

void append_open(Append *a, const char *path)
{
    struct stat st;
    const int flags = O_RDWR | O_APPEND | O_NONBLOCK | O_CLOEXEC;
    must_be_file(path);
    char *tmp = format("%s.tmp", path);
    nobody_writes(tmp, path);
    free(tmp);
    *a = (Append){.path = xstrdup(path), .fd = open(path, flags | O_CREAT | O_EXCL, 0666)};
    if (a->fd >= 0) made_here(path);
    else if (errno == EEXIST) a->fd = open(path, flags);
    if (a->fd < 0 || fstat(a->fd, &st)) not_written(path);
    lock(a->fd, path);
    if (fstat(a->fd, &st)) die("%s: cannot be written: %s", path, strerror(errno)); // its size, now that it is ours
    a->whole = (size_t)st.st_size;
}

void append_cut(Append *a, size_t whole)
{
    if (ftruncate(a->fd, (off_t)whole)) die("%s: cannot be cut back: %s", a->path, strerror(errno));
    a->whole = whole;
}

void append_write(Append *a, const char *data, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t k = write(a->fd, data + at, n - at);
        if (k < 0 && errno == EINTR) continue;
        int why = k < 0 ? errno : ENOSPC;
        if (k <= 0 && ftruncate(a->fd, (off_t)a->whole)) {} // if this fails too, a last line is torn, as after a kill
        if (k <= 0) die("%s: cannot be written: %s", a->path, strerror(why));
        at += (size_t)k;
    }
    a->whole += n;
}

void append_close(Append *a)
{
    if (fsync(a->fd) || close(a->fd)) die("%s: cannot be written: %s", a->path, strerror(errno));
    free(a->path);
}

// ----------------------------------------------------------------------------
// reading

// For reading. -1: not there. What would never end or change between two readings dies: a folder, a device, and a pipe
// unless it is good.
static int readable(const char *path, bool pipes)
{
    struct stat st;
    if (!look(path, &st)) return -1;
    const char *what = kind(&st);
    if (strcmp(what, "file") && !(pipes && !strcmp(what, "pipe")))
        die("%s: cannot be read: it is a %s: name a file", path, what);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) die("%s: cannot be read: %s", path, strerror(errno));
    return fd;
}

static FILE *open_to_read(const char *path, bool pipe) // NULL: not there
{
    int fd = readable(path, pipe);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "rb");
    if (fd >= 0 && !f) die("%s: cannot be read: %s", path, strerror(errno));
    return f;
}

bool lines_open(Lines *in, const char *path, bool pipes)
{
    *in = (Lines){.path = path, .f = open_to_read(path, pipes)};
    return in->f != NULL;
}

bool lines_next(Lines *in)
{
    errno = 0;
    ssize_t n = getline(&in->buffer, &in->cap, in->f); // a failed read may give half a line; no memory is no ferror
    bool bad = ferror(in->f) || (n < 0 && !feof(in->f));
    if (bad) die("%s: cannot be read after line %zu: %s", in->path, in->line, strerror(errno));
    in->n = n < 0 ? 0 : (size_t)n;
    in->line += n >= 0;
    return n >= 0;
}

void lines_close(Lines *in) { fclose(in->f); free(in->buffer); }

char *file_read(const char *path, size_t *n)
{
    FILE *f = open_to_read(path, false);
    if (!f) return NULL;
    char *s = NULL;
    *n = 0;
    for (size_t cap = 0, k = 1; k; *n += k) {
        if (cap < *n + 65536) s = (char *)xrealloc(s, cap = 2 * *n + 65536 + 1);
        k = fread(s + *n, 1, cap - 1 - *n, f);
    }
    if (ferror(f)) die("%s: cannot be read: %s", path, strerror(errno));
    s[*n] = 0;
    fclose(f);
    return s;
}

uint64_t file_fingerprint(const char *path)
{
    FILE *f = open_to_read(path, false);
    uint64_t h = 1, words[1024];
    if (!f) die("%s: cannot be read: %s", path, strerror(ENOENT));
    for (size_t k = 1; k;) {
        memset(words, 0, sizeof words);
        k = fread(words, 1, sizeof words, f);
        for (size_t i = 0; i < (k + 7) / 8; i++) h = hash_more(h, words[i]);
        h = mix64(h ^ k);
    }
    if (ferror(f)) die("%s: cannot be read: %s", path, strerror(errno));
    fclose(f);
    return h;
}

bool remove_file(const char *path)
{
    if (!unlink(path)) return true;
    if (!absent()) die("%s: cannot be removed: %s", path, strerror(errno));
    return false;
}

// ----------------------------------------------------------------------------
// folders

void make_folder(const char *path)
{
    if (!*path) die("--out: an empty name");
    char *p = xstrdup(path);
    for (char *s = p + 1;; s++) {
        char c = *s;
        if (c && c != '/') continue;
        *s = 0;
        no_dead_link(p);
        if (!mkdir(p, 0777)) made_here(p);
        else if (errno != EEXIST) die("%s: cannot be made: %s", p, strerror(errno));
        *s = c;
        if (!c) break;
    }
    free(p);
    if (!is_folder(path)) die("%s: is not a folder: name another", path);
}

void out_folder(const char *path)
{
    make_folder(path);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); // stays open, and so locked
    if (fd < 0 || access(path, W_OK | X_OK)) die("%s: cannot be written: %s", path, strerror(errno));
    lock(fd, path);
}

void sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd)) die("%s: cannot be flushed to disk: %s", path, strerror(errno));
    close(fd);
}

void sync_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && absent()) return;
    if (fd < 0 || fsync(fd)) die("%s: cannot be flushed to disk: %s", path, strerror(errno));
    close(fd);
}

bool folder_removed(const char *path, bool (*ours)(const char *name))
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), why = 0;
    if (fd < 0) return absent() || errno == ELOOP;
    DIR *d = fdopendir(fd);
    if (!d) { why = errno; close(fd); errno = why; return false; }
    for (struct dirent *e; errno = 0, e = readdir(d);)
        if (ours(e->d_name) && unlinkat(fd, e->d_name, 0) && errno != ENOENT && !why) why = errno;
    if (errno && !why) why = errno;
    bool kept = !why && rmdir(path) && errno != ENOENT;
    if (kept && errno == ENOTEMPTY) fprintf(stderr, "vbon: note: %s: is kept: it holds files of others\n", path);
    else if (kept) why = errno;
    closedir(d);
    errno = why;
    return !why;
}

void remove_folder(const char *path, bool (*ours)(const char *name))
{
    if (!folder_removed(path, ours)) die("%s: cannot be removed: %s", path, strerror(errno));
}
#endif
