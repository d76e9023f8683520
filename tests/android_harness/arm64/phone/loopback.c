/* Preloaded into adbd: it listens on 127.0.0.1 only, and not on vsock.
 *
 * adbd listens on every interface and asks nobody who he is, so a test that starts it must not let
 * the network in. Programs that adbd starts do not inherit this.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const unsigned char mapped_loopback[16] = {0, 0, 0,    0,    0,   0, 0, 0,
                                                  0, 0, 0xff, 0xff, 127, 0, 0, 1};

__attribute__((constructor)) static void keep_to_adbd(void) { unsetenv("LD_PRELOAD"); }

int socket(int domain, int type, int protocol) {
  int (*real)(int, int, int) = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");
  if (domain == AF_VSOCK) {
    errno = EAFNOSUPPORT;
    return -1;
  }
  return real(domain, type, protocol);
}

int bind(int fd, const struct sockaddr *address, socklen_t length) {
  int (*real)(int, const struct sockaddr *, socklen_t) =
      (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "bind");
  struct sockaddr_storage own;
  if (length > sizeof own) {
    errno = EINVAL;
    return -1;
  }
  memcpy(&own, address, length);
  if (own.ss_family == AF_INET && length >= sizeof(struct sockaddr_in))
    ((struct sockaddr_in *)&own)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (own.ss_family == AF_INET6 && length >= sizeof(struct sockaddr_in6))
    memcpy(&((struct sockaddr_in6 *)&own)->sin6_addr, mapped_loopback, sizeof mapped_loopback);
  return real(fd, (struct sockaddr *)&own, length);
}
