// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Copyright: (c) 2026, The edgenpu.tuning authors
 * GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
 *
 * First process of the twin: loads the modules that a real board has built in, sets the address on the emulator's user
 * network (a network daemon would cost seconds on every boot), mounts the root file system and hands over to its init.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MODULE_LIST	"/modules/order"
#define ROOT_DEVICE	"/dev/vda"
#define ADDRESS		"10.0.2.15"
#define NETMASK		"255.255.255.0"
#define GATEWAY		"10.0.2.2"

static void complain(const char *what)
{
	printf("twin init: %s: %s\n", what, strerror(errno));
	fflush(stdout);
}

static void give_up(const char *what)
{
	complain(what);
	for (;;)
		pause();
}

static void set_ipv4(struct sockaddr *where, const char *text)
{
	struct sockaddr_in *address = (struct sockaddr_in *)where;

	memset(address, 0, sizeof(*address));
	address->sin_family = AF_INET;
	inet_pton(AF_INET, text, &address->sin_addr);
}

static void bring_up(int sock, const char *interface, const char *address, const char *netmask)
{
	struct ifreq request;

	memset(&request, 0, sizeof(request));
	strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
	set_ipv4(&request.ifr_addr, address);
	if (ioctl(sock, SIOCSIFADDR, &request))
		complain(interface);
	set_ipv4(&request.ifr_netmask, netmask);
	if (ioctl(sock, SIOCSIFNETMASK, &request))
		complain(interface);
	if (ioctl(sock, SIOCGIFFLAGS, &request))
		complain(interface);
	request.ifr_flags |= IFF_UP | IFF_RUNNING;
	if (ioctl(sock, SIOCSIFFLAGS, &request))
		complain(interface);
}

static void set_network(void)
{
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct rtentry route;

	bring_up(sock, "lo", "127.0.0.1", "255.0.0.0");
	bring_up(sock, "eth0", ADDRESS, NETMASK);
	memset(&route, 0, sizeof(route));
	set_ipv4(&route.rt_dst, "0.0.0.0");
	set_ipv4(&route.rt_genmask, "0.0.0.0");
	set_ipv4(&route.rt_gateway, GATEWAY);
	route.rt_flags = RTF_UP | RTF_GATEWAY;
	if (ioctl(sock, SIOCADDRT, &route))
		complain("default route");
	close(sock);
}

static void load_modules(void)
{
	char path[256];
	FILE *list = fopen(MODULE_LIST, "r");

	if (!list)
		give_up(MODULE_LIST);
	while (fgets(path, sizeof(path), list)) {
		int module;

		path[strcspn(path, "\n")] = 0;
		module = open(path, O_RDONLY | O_CLOEXEC);
		if (module < 0 || (syscall(SYS_finit_module, module, "", 0) && errno != EEXIST))
			complain(path);
		if (module >= 0)
			close(module);
	}
	fclose(list);
}

int main(void)
{
	const struct timespec tick = { .tv_nsec = 10000000 };
	int console, tries;

	mount("dev", "/dev", "devtmpfs", 0, NULL);
	console = open("/dev/console", O_RDWR);
	if (console >= 0) {
		dup2(console, 0);
		dup2(console, 1);
		dup2(console, 2);
	}
	load_modules();
	set_network();
	for (tries = 0; access(ROOT_DEVICE, F_OK) && tries < 1000; tries++)
		nanosleep(&tick, NULL);
	if (mount(ROOT_DEVICE, "/root", "ext4", MS_NOATIME, ""))
		give_up(ROOT_DEVICE);
	mount("/dev", "/root/dev", NULL, MS_MOVE, NULL);
	if (chdir("/root") || mount("/root", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		give_up("switch to the root file system");
	execl("/sbin/init", "init", (char *)NULL);
	give_up("/sbin/init");
}
