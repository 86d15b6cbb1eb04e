/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A door into a save helper's process: loaded there by LD_PRELOAD, beside libfakexen.so, it lets a test in another
 * process make a domain before the helper's main() runs, and look at it, or suspend it, while the helper works.
 *
 * HELPER_DOOR is the descriptor of a socket. Each program that this is loaded in writes "started PID" to it. Then
 * requests come, a line each, and are answered by a line "NUMBER TEXT"; the names are those of fakexen's control
 * interface. "go" lets main() run; from then on a thread answers.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int64_t (*of_host)(char *text, size_t size);
typedef int64_t (*of_domain)(int domid, char *text, size_t size);
typedef int64_t (*of_json)(const char *json, char *text, size_t size);

static FILE *requests, *replies;
static char text[1 << 16];

/* Calls a function of the control interface: with a domid, with JSON, or with neither. */
static int64_t call(const char *name, const char *argument)
{
    char symbol[80];
    void *function;

    snprintf(symbol, sizeof symbol, "fakexen_%s", name);
    function = dlsym(RTLD_DEFAULT, symbol);
    text[0] = '\0';
    if (!function) {
        snprintf(text, sizeof text, "there is no %s", symbol);
        return -1;
    }
    if (*argument == '{')
        return ((of_json)function)(argument, text, sizeof text);
    if (*argument)
        return ((of_domain)function)(atoi(argument), text, sizeof text);
    return ((of_host)function)(text, sizeof text);
}

/* Answers requests until the other end is closed, or says "go". */
static void serve(void)
{
    static char line[1 << 16];

    while (fgets(line, sizeof line, requests)) {
        char *name = strtok(line, " \n"), *argument = strtok(NULL, "\n");
        int64_t number = 0;

        if (!name)
            continue;
        if (strcmp(name, "go"))
            number = call(name, argument ? argument : "");
        else
            text[0] = '\0';
        fprintf(replies, "%lld %s\n", (long long)number, text);
        fflush(replies);
        if (!strcmp(name, "go"))
            return;
    }
}

static void *answer(void *unused)
{
    (void)unused;
    serve();
    return NULL;
}

__attribute__((constructor)) static void open_door(void)
{
    const char *descriptor = getenv("HELPER_DOOR");
    sigset_t all, before;
    pthread_t thread;

    if (!descriptor)
        return;
    requests = fdopen(dup(atoi(descriptor)), "r");
    replies = fdopen(dup(atoi(descriptor)), "w");
    if (!requests || !replies)
        abort();
    fprintf(replies, "started %ld\n", (long)getpid());
    fflush(replies);
    serve();
    /* Signals are for the helper's own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, answer, NULL))
        abort();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}
