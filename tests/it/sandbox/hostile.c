/* A "Python" that turns on the machine it runs on. It fails when it is only probed, and answers that each module is
   invalid when it reached nothing; else it ends with the number of the first thing that it reached. */
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int finds_secret(void) {
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    static char text[1 << 20];
    while (processes && (entry = readdir(processes))) {
        char path[300];
        snprintf(path, sizeof path, "/proc/%s/environ", entry->d_name);
        int file = open(path, O_RDONLY);
        ssize_t size = file < 0 ? 0 : read(file, text, sizeof text);
        if (file >= 0) close(file);
        if (size > 0 && memmem(text, size, SECRET, strlen(SECRET))) return 1;
    }
    return 0;
}

static int connects(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    int stream = socket(AF_INET, SOCK_STREAM, 0);
    return stream >= 0 && connect(stream, (struct sockaddr *)&address, sizeof address) == 0;
}

static int talks(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = FOLDER "/socket"};
    int stream = socket(AF_UNIX, SOCK_STREAM, 0);
    return stream >= 0 && connect(stream, (struct sockaddr *)&address, sizeof address) == 0;
}

static int writes(const char *path) { return open(path, O_CREAT | O_WRONLY, 0600) >= 0; }
static int reads(const char *path) { return open(path, O_RDONLY) >= 0; }

static int forks(void) {
    int child = fork();
    if (child == 0) _exit(0);
    return child > 0;
}

static int reached(void) {
    if (finds_secret()) return 101;
    if (connects()) return 102;
    if (talks()) return 103;
    if (writes(FOLDER "/home/loot")) return 104;
    if (writes(FOLDER "/cache/loot")) return 105;
    if (writes("/loot") || writes("/usr/lib/loot")) { unlink("/loot"); unlink("/usr/lib/loot"); return 106; }
    if (reads(FOLDER "/home/.netrc")) return 107;
    if (reads(FOLDER "/cache/v1/archives/.")) return 108;
    if (truncate(FOLDER "/home/.netrc", 0) == 0) return 109;
    if (chdir(FOLDER "/home") == 0 && creat("loot", 0600) >= 0) return 110;
    if (ptrace(PTRACE_SEIZE, getppid(), 0, 0) == 0) return 111;
    if (forks()) return 112;
    return 0;
}

static void forward(size_t size) {
    while (size--) if (getchar() == EOF) exit(0);
}

static void skip(void) {
    unsigned char size[4];
    if (fread(size, 1, 4, stdin) < 4) exit(0);
    forward((size_t)size[0] << 24 | size[1] << 16 | size[2] << 8 | size[3]);
}

int main(int count, char **words) {
    if (!strstr(words[count - 1], "marshal")) return 1;
    const char *mode = MODE;
    if (!strcmp(mode, "attack")) {
        int what = reached();
        if (what) return what;
    }
    if (!strcmp(mode, "sleep")) for (;;) pause();
    for (;;) {
        skip();
        skip();
        if (!strcmp(mode, "endless")) {
            fwrite("\xff\xff\xff\xfe", 1, 4, stdout);
            for (;;) putchar('x');
        }
        /* Something that is the byte code of no module. */
        if (!strcmp(mode, "other")) fwrite("\0\0\0\x14" "#!/bin/sh\nrm -rf ~/ \n", 1, 24, stdout);
        else fwrite("\xff\xff\xff\xff", 1, 4, stdout);
        fflush(stdout);
    }
}
