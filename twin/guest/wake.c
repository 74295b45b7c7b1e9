// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Copyright: (c) 2026, The edgenpu.tuning authors
 * GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
 *
 * What a machine that was resumed from a snapshot needs before anyone uses it: the time of day, and random numbers that
 * differ from those of every other clone. It says "ready", for logging in takes a second or two, and then reads
 * the time in microseconds since the epoch (eight bytes, little endian) and 64 random bytes from its standard input.
 */
#include <fcntl.h>
#include <linux/random.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define SEED_BYTES 64

static int read_all(void *buffer, size_t wanted)
{
	while (wanted) {
		ssize_t got = read(0, buffer, wanted);

		if (got <= 0)
			return -1;
		buffer = (char *)buffer + got;
		wanted -= (size_t)got;
	}
	return 0;
}

int main(void)
{
	struct {
		int entropy_count;
		int buf_size;
		char buf[SEED_BYTES];
	} seed = { .entropy_count = SEED_BYTES * 8, .buf_size = SEED_BYTES };
	uint64_t now_us;
	struct timespec now;
	int random;

	if (write(1, "ready\n", 6) != 6 || read_all(&now_us, sizeof(now_us)) || read_all(seed.buf, SEED_BYTES)) {
		fprintf(stderr, "twin-wake: standard input ended early\n");
		return 1;
	}
	now.tv_sec = (time_t)(now_us / 1000000);
	now.tv_nsec = (long)(now_us % 1000000) * 1000;
	if (clock_settime(CLOCK_REALTIME, &now)) {
		perror("twin-wake: setting the clock");
		return 1;
	}
	random = open("/dev/urandom", O_RDWR);
	if (random < 0 || ioctl(random, RNDADDENTROPY, &seed) || ioctl(random, RNDRESEEDCRNG)) {
		perror("twin-wake: seeding the random number generator");
		return 1;
	}
	return 0;
}
