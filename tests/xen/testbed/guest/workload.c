// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * The only program of a test guest: init of its initramfs. It fills memory with content that is known for each page,
 * rewrites pages at a given rate, compares all of them once per interval, and says what it found on the console.
 *
 * Parameters stand on the kernel command line; the kernel hands what it does not know itself to init's environment:
 *
 *   dirty_mb=32       MiB of memory with known content
 *   dirty_rate=640    pages rewritten per second; 0 is an idle guest, which still compares
 *   hot_pages=0       how many pages are hot ...
 *   hot_percent=90    ... and get this share of the rewrites; without hot pages all are equal
 *   cpus=1            the work goes round so many CPUs, one report on each: one that hangs, hangs it
 *   report_ms=1000    time between two reports
 *
 * Lines, all of them with the prefix "workload":
 *
 *   workload start pages=8192 rate=640 hot_pages=0 hot_percent=90 cpus=1 report_ms=1000
 *   workload report n=3 writes=1920 bad=0 up_ms=4012 clock_ms=1795510923456
 *   workload bad page=17 word=5 generation=2 have=0123456789abcdef want=0123456789abcdf0
 *   workload failed: no memory for 8192 pages
 *
 * n and writes only ever grow: that they do across a migration shows that no old memory came back as a whole.
 * bad counts the pages that differ at this report; at most MOST_BAD_LINES of them get a line of their own, ever.
 * up_ms is CLOCK_BOOTTIME, clock_ms CLOCK_REALTIME.
 *
 * As /sbin/poweroff and /sbin/reboot, which the kernel runs for `xl shutdown` and `xl reboot`, it does just that.
 */
#define _GNU_SOURCE /* sched_setaffinity */
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096, PAGE_WORDS = PAGE_BYTES / 8, STEP_MS = 10, MOST_BAD_LINES = 8 };

typedef uint64_t page_t[PAGE_WORDS];

static struct {
    uint64_t pages, rate, hot_pages, hot_percent, cpus, report_ms;
} parameters;

static page_t *memory;       /* what is migrated and compared */
static uint64_t *generation; /* how often each page was rewritten */

/* One write a line, so that no other line of the console can come in between. */
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char line[256] = "workload ";
    size_t length = strlen(line);
    va_list arguments;

    va_start(arguments, format);
    int added = vsnprintf(line + length, sizeof line - length - 1, format, arguments);
    va_end(arguments);
    if (added < 0)
        return;
    length += (size_t)added < sizeof line - length - 1 ? (size_t)added : sizeof line - length - 2;
    line[length++] = '\n';
    if (write(STDOUT_FILENO, line, length) < 0)
        return; /* no console to report to */
}

/* Ends the guest, and with it, on Xen, the domain. */
static _Noreturn void leave(int how)
{
    if (getpid() == 1)
        reboot(how);
    exit(EXIT_FAILURE);
}

static uint64_t parameter(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    char *end;

    if (text == NULL)
        return otherwise;
    uint64_t value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0') {
        say("failed: %s=%s is no number", name, text);
        leave(RB_POWER_OFF);
    }
    return value;
}

static uint64_t now_ms(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The finalizer of splitmix64: neighbours as input, nothing in common as output. */
static uint64_t mixed(uint64_t value)
{
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

/* What word 0 of a page holds; word k holds k more. It tells pages apart, and the generations of one page. */
static uint64_t first_word(uint64_t page)
{
    return mixed((page + 1) << 32 ^ generation[page]);
}

static void fill(uint64_t page)
{
    uint64_t word = first_word(page);

    for (int k = 0; k < PAGE_WORDS; k++)
        memory[page][k] = word++;
}

static uint64_t next_page(void)
{
    static uint64_t state = 1;

    state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t random = mixed(state);
    bool hot = parameters.hot_pages > 0 && random % 100 < parameters.hot_percent;
    return (random >> 8) % (hot ? parameters.hot_pages : parameters.pages);
}

static uint64_t count_bad_pages(void)
{
    static int lines;
    uint64_t bad = 0;

    for (uint64_t page = 0; page < parameters.pages; page++) {
        uint64_t want = first_word(page);
        for (int k = 0; k < PAGE_WORDS; k++, want++) {
            uint64_t have = *(volatile uint64_t *)&memory[page][k];
            if (have == want)
                continue;
            if (lines < MOST_BAD_LINES) {
                lines++;
                say("bad page=%" PRIu64 " word=%d generation=%" PRIu64 " have=%016" PRIx64 " want=%016" PRIx64, page,
                    k, generation[page], have, want);
            }
            bad++;
            break;
        }
    }
    return bad;
}

static void move_to_cpu(uint64_t cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) {
        say("failed: there is no CPU %" PRIu64, cpu);
        leave(RB_POWER_OFF);
    }
}

static void *anonymous(uint64_t bytes)
{
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (start == MAP_FAILED) {
        say("failed: no memory for %" PRIu64 " pages", parameters.pages);
        leave(RB_POWER_OFF);
    }
    return start;
}

static void work(void)
{
    uint64_t writes = 0, reports = 0;
    uint64_t last_ms = now_ms(CLOCK_MONOTONIC), report_due_ms = last_ms;
    uint64_t owed = 0; /* in thousandths of a page */

    for (;;) {
        uint64_t now = now_ms(CLOCK_MONOTONIC), passed_ms = now - last_ms;
        last_ms = now;
        /* After a stop of the guest, or a slow comparison, the rate is kept up and not made up for. */
        owed += parameters.rate * (passed_ms < 10 * STEP_MS ? passed_ms : 10 * STEP_MS);
        for (; owed >= 1000; owed -= 1000, writes++) {
            uint64_t page = next_page();
            generation[page]++;
            fill(page);
        }
        if (now >= report_due_ms) {
            uint64_t bad = count_bad_pages();
            say("report n=%" PRIu64 " writes=%" PRIu64 " bad=%" PRIu64 " up_ms=%" PRIu64 " clock_ms=%" PRIu64,
                reports++, writes, bad, now_ms(CLOCK_BOOTTIME), now_ms(CLOCK_REALTIME));
            report_due_ms = now + parameters.report_ms;
            move_to_cpu(reports % parameters.cpus);
        }
        nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
    }
}

int main(int count, char **arguments)
{
    const char *name = count > 0 ? strrchr(arguments[0], '/') : NULL;

    if (name != NULL && strcmp(name, "/poweroff") == 0)
        return reboot(RB_POWER_OFF);
    if (name != NULL && strcmp(name, "/reboot") == 0)
        return reboot(RB_AUTOBOOT);

    parameters.pages = parameter("dirty_mb", 32) * (1024 * 1024 / PAGE_BYTES);
    parameters.rate = parameter("dirty_rate", 640);
    parameters.hot_pages = parameter("hot_pages", 0);
    parameters.hot_percent = parameter("hot_percent", 90);
    parameters.cpus = parameter("cpus", 1);
    parameters.report_ms = parameter("report_ms", 1000);
    if (parameters.pages == 0 || parameters.hot_pages > parameters.pages || parameters.hot_percent > 100 ||
        parameters.cpus == 0) {
        say("failed: dirty_mb and cpus must be positive, hot_pages at most its pages, hot_percent at most 100");
        leave(RB_POWER_OFF);
    }
    generation = anonymous(parameters.pages * sizeof *generation);
    memory = anonymous(parameters.pages * PAGE_BYTES);
    for (uint64_t page = 0; page < parameters.pages; page++)
        fill(page);
    say("start pages=%" PRIu64 " rate=%" PRIu64 " hot_pages=%" PRIu64 " hot_percent=%" PRIu64 " cpus=%" PRIu64
        " report_ms=%" PRIu64,
        parameters.pages, parameters.rate, parameters.hot_pages, parameters.hot_percent, parameters.cpus,
        parameters.report_ms);
    work();
}
