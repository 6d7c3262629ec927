/* A Video4Linux camera without a kernel module: preloaded into a process, it is /dev/video3 (a camera) and /dev/video4
 * (the metadata node that comes with one) to whoever opens those, Python and OpenCV alike.
 *
 *     cc -shared -fPIC -o device.so v4l2_device.c -lpthread
 *     V4L2_DEVICE=folder LD_PRELOAD=device.so python ...
 *
 * The folder says how it behaves: the camera is there while "plugged" exists; "busy", "denied" and "stalled" are what
 * they say; while "spoilt" exists its bytes are each picture; "raw" makes a Raspberry Pi's sensor of it. Its pictures are "1280x720.jpg" and "640x480.jpg", 30 a second,
 * stamped with CLOCK_MONOTONIC, 0.2 s before they are given while "late" exists, and with the time of day, as some
 * drivers do, while "wall" does. It takes MJPG and YUYV, and writes what
 * formats it was set to into "log", and how many buffers it was asked for into "buffers".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BUFFERS 4
#define LENGTH (1 << 22)
#define MAX_FD 1024

static int kinds[MAX_FD]; /* 0: not ours; 1: camera; 2: metadata node */
static int streaming_fd = -1;
static unsigned width = 640, height = 480, format = V4L2_PIX_FMT_YUYV;
static unsigned char *buffers[BUFFERS];
static int queued[BUFFERS], next_buffer;
static unsigned sequence;

static int is(const char *state) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("V4L2_DEVICE"), state);
    return access(path, F_OK) == 0;
}

static void note(const char *file, const char *what, ...) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("V4L2_DEVICE"), file);
    FILE *log = fopen(path, "a");
    if (log) {
        va_list rest;
        va_start(rest, what);
        vfprintf(log, what, rest);
        va_end(rest);
        fclose(log);
    }
}

static void *tick(void *unused) {
    (void)unused;
    for (;;) {
        usleep(33333);
        unsigned long long one = 1;
        /* Unplugged: readable, and reading says ENODEV, as the kernel does it. */
        if (streaming_fd >= 0 && (!is("plugged") || !is("stalled")) && write(streaming_fd, &one, sizeof one) < 0)
            continue;
    }
    return NULL;
}

static int fail(int error) {
    errno = error;
    return -1;
}

static int open_ours(const char *path) {
    int kind = strcmp(path, "/dev/video3") == 0 ? 1 : strcmp(path, "/dev/video4") == 0 ? 2 : 0;
    if (!is("plugged"))
        return fail(ENOENT);
    if (is("denied"))
        return fail(EACCES);
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd >= 0 && fd < MAX_FD)
        kinds[fd] = kind;
    return fd;
}

static int ours(const char *path) {
    return path && getenv("V4L2_DEVICE") && (!strcmp(path, "/dev/video3") || !strcmp(path, "/dev/video4"));
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return ours(path) ? open_ours(path) : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return ours(path) ? open_ours(path) : (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int close(int fd) {
    if (fd >= 0 && fd < MAX_FD && kinds[fd]) {
        kinds[fd] = 0;
        if (fd == streaming_fd)
            streaming_fd = -1;
    }
    return (int)syscall(SYS_close, fd);
}

void *mmap64(void *at, size_t length, int protection, int flags, int fd, off64_t offset) {
    if (fd >= 0 && fd < MAX_FD && kinds[fd]) { /* the camera writes what its user only reads */
        int index = (int)(offset / LENGTH);
        buffers[index] = (unsigned char *)syscall(
            SYS_mmap, NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return buffers[index];
    }
    return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}

void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    return mmap64(at, length, protection, flags, fd, offset);
}

static int set_format(struct v4l2_format *wanted, int set) {
    if (set) {
        if (is("busy"))
            return fail(EBUSY);
        unsigned asked = wanted->fmt.pix.pixelformat;
        format = asked == V4L2_PIX_FMT_MJPEG ? asked : V4L2_PIX_FMT_YUYV;
        int large = wanted->fmt.pix.width > 960;
        width = large ? 1280 : 640;
        height = large ? 720 : 480;
        note("log", "S_FMT %.4s %ux%u\n", (char *)&format, width, height);
    }
    wanted->fmt.pix.width = width;
    wanted->fmt.pix.height = height;
    wanted->fmt.pix.pixelformat = format;
    wanted->fmt.pix.bytesperline = format == V4L2_PIX_FMT_MJPEG ? 0 : width * 2;
    wanted->fmt.pix.sizeimage = format == V4L2_PIX_FMT_MJPEG ? LENGTH : width * height * 2;
    return 0;
}

static int dequeue(int fd, struct v4l2_buffer *buffer) {
    unsigned long long count;
    char path[4096];
    struct timespec now;
    if (!is("plugged"))
        return fail(ENODEV);
    if (read(fd, &count, sizeof count) < 0)
        return fail(EAGAIN);
    int index = next_buffer;
    for (int tries = 0; tries < BUFFERS && !queued[index]; tries++)
        index = (index + 1) % BUFFERS;
    if (!queued[index])
        return fail(EAGAIN);
    next_buffer = (index + 1) % BUFFERS;
    queued[index] = 0;
    if (is("spoilt"))
        snprintf(path, sizeof path, "%s/spoilt", getenv("V4L2_DEVICE"));
    else
        snprintf(path, sizeof path, "%s/%ux%u.jpg", getenv("V4L2_DEVICE"), width, height);
    FILE *file = fopen(path, "rb");
    buffer->bytesused = file ? (unsigned)fread(buffers[index], 1, LENGTH, file) : 0;
    if (file)
        fclose(file);
    clock_gettime(is("wall") ? CLOCK_REALTIME : CLOCK_MONOTONIC, &now);
    if (is("late") && (now.tv_nsec -= 200000000) < 0) {
        now.tv_nsec += 1000000000;
        now.tv_sec--;
    }
    buffer->index = (unsigned)index;
    buffer->length = LENGTH;
    buffer->sequence = sequence++;
    buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    buffer->timestamp.tv_sec = now.tv_sec;
    buffer->timestamp.tv_usec = now.tv_nsec / 1000;
    return 0;
}

static int control(int fd, unsigned long request, void *argument) {
    static pthread_t thread;
    if (!is("plugged"))
        return fail(ENODEV);
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *answer = argument;
        memset(answer, 0, sizeof *answer);
        strcpy((char *)answer->driver, is("raw") ? "unicam" : "uvcvideo");
        strcpy((char *)answer->card, "Test camera");
        answer->device_caps = V4L2_CAP_STREAMING | (kinds[fd] == 1 ? V4L2_CAP_VIDEO_CAPTURE : V4L2_CAP_META_CAPTURE);
        answer->capabilities = V4L2_CAP_DEVICE_CAPS | V4L2_CAP_STREAMING | V4L2_CAP_VIDEO_CAPTURE;
        return 0;
    }
    case VIDIOC_G_FMT:
        return set_format(argument, 0);
    case VIDIOC_S_FMT:
        return set_format(argument, 1);
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM: {
        struct v4l2_streamparm *rate = argument;
        rate->parm.capture.timeperframe.numerator = 1;
        rate->parm.capture.timeperframe.denominator = 30;
        return 0;
    }
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *asked = argument;
        if (is("busy"))
            return fail(EBUSY);
        note("buffers", "%u\n", asked->count);
        asked->count = asked->count > BUFFERS ? BUFFERS : asked->count;
        memset(queued, 0, sizeof queued);
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *buffer = argument;
        buffer->length = LENGTH;
        buffer->m.offset = buffer->index * LENGTH;
        return 0;
    }
    case VIDIOC_QBUF:
        queued[((struct v4l2_buffer *)argument)->index] = 1;
        return 0;
    case VIDIOC_DQBUF:
        return dequeue(fd, argument);
    case VIDIOC_STREAMON:
        streaming_fd = fd;
        if (!thread)
            pthread_create(&thread, NULL, tick, NULL);
        return 0;
    case VIDIOC_STREAMOFF:
        streaming_fd = -1;
        return 0;
    default:
        return fail(ENOTTY);
    }
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (fd >= 0 && fd < MAX_FD && kinds[fd])
        return control(fd, request & 0xFFFFFFFF, argument); /* Python may extend the sign */
    return (int)syscall(SYS_ioctl, fd, request, argument);
}
