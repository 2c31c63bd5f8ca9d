/* libcuda.so.1 of a bare host: what CUDA says when it starts follows from the host. */
struct file;
extern struct file *popen(const char *command, const char *mode);
extern int pclose(struct file *stream);
extern int fscanf(struct file *stream, const char *format, ...);

static int code = 3, count;

int cuInit(unsigned int flags)
{
    struct file *said = popen("python3 /usr/lib/lab-gpu/cuda_start.py " VERSION, "r");
    if (!said || fscanf(said, "%d %d", &code, &count) != 2)
        code = 999;
    if (said)
        pclose(said);
    return flags ? 1 : code;
}

int cuDeviceGetCount(int *found)
{
    *found = count;
    return code;
}
