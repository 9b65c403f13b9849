/* Preloaded into a program, it lets every flush of a file take longer: SLOW_SYNC_MICROSECONDS more than the disk needs.
   So a machine whose disk only says that it has flushed shows what a program does on one that really has. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static int flush_slowly(const char *name, int file)
{
    int (*flush)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    const char *given = getenv("SLOW_SYNC_MICROSECONDS");
    long long nanoseconds = 1000LL * (given ? atoll(given) : 0);
    struct timespec wait = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    int result = flush(file);
    nanosleep(&wait, NULL);
    return result;
}

int fsync(int file) { return flush_slowly("fsync", file); }
int fdatasync(int file) { return flush_slowly("fdatasync", file); }
