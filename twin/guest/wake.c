// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Copyright: (c) 2026, The edgenpu.tuning authors
 * GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
 *
 * twin-wake SECONDS < 64 random bytes
 * What a machine that was resumed from a snapshot needs before anyone uses it: the time of day, and random numbers that
 * differ from those of every other clone.
 */
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

#define SEED_BYTES 64

int main(int argc, char **argv)
{
	struct {
		int entropy_count;
		int buf_size;
		char buf[SEED_BYTES];
	} seed = { .entropy_count = SEED_BYTES * 8, .buf_size = SEED_BYTES };
	struct timespec now = { 0 };
	double seconds = argc == 2 ? strtod(argv[1], NULL) : 0;
	size_t filled = 0;
	int random;

	now.tv_sec = (time_t)seconds;
	now.tv_nsec = (long)((seconds - (double)now.tv_sec) * 1e9);
	if (now.tv_sec <= 0 || clock_settime(CLOCK_REALTIME, &now)) {
		perror("twin-wake: setting the clock");
		return 1;
	}
	while (filled < SEED_BYTES) {
		ssize_t got = read(0, seed.buf + filled, SEED_BYTES - filled);

		if (got <= 0) {
			fprintf(stderr, "twin-wake: %zu of %d seed bytes on standard input\n", filled, SEED_BYTES);
			return 1;
		}
		filled += (size_t)got;
	}
	random = open("/dev/urandom", O_RDWR);
	if (random < 0 || ioctl(random, RNDADDENTROPY, &seed) || ioctl(random, RNDRESEEDCRNG)) {
		perror("twin-wake: seeding the random number generator");
		return 1;
	}
	return 0;
}
