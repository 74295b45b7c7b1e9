// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: (c) 2026, The edgenpu.tuning authors
 *
 * Stand-in for the vendor's axcl_host. Loading it "hands every card its firmware": it blocks for a while for each, says
 * in the kernel log what the vendor's says, and makes /dev/axcl_host at the very end, whether cards live or not. What
 * happens is chosen by /etc/axcl-standin.conf (see the stand-in's README) or by parameters.
 *
 * A line written to /dev/axcl_host acts upon a card:
 *   reboot BDF          as the tool's "reboot" does
 *   dead BDF            the card dies, and a reboot of the card helps
 *   dead BDF release    the card dies, and comes back when whoever has this node open closes it
 *   dead BDF reload     the card dies, and loading the driver again helps
 *   dead BDF rescan     the card dies, and only its removal from the PCI bus and a rescan help
 */
#include <linux/delay.h>
#include <linux/firmware.h>
#include <linux/fs.h>
#include <linux/kernel_read_file.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "ax_cards.h"

AX_TELL_VERSION;

#define AX_FIRMWARE	"axcl/ax650_card.pac"
#define AX_MAX_CARDS	32
#define AX_HEARTBEAT_S	5

static char behaviour[24] = "";
module_param_string(behaviour, behaviour, sizeof(behaviour), 0444);
MODULE_PARM_DESC(behaviour, "builds, fails-to-load, dead-card or hangs");

static unsigned int load_ms;
module_param(load_ms, uint, 0444);
MODULE_PARM_DESC(load_ms, "how long one card's firmware takes, handshake included (default 1000)");

static unsigned int handshake_ms;
module_param(handshake_ms, uint, 0444);
MODULE_PARM_DESC(handshake_ms, "how long each of the two steps of a handshake is waited for in vain (default 500)");

enum ax_state { AX_ALIVE, AX_DEAD_UNTIL_RELEASE, AX_DEAD_UNTIL_REBOOT, AX_DEAD };

struct ax_card {
	struct pci_dev *pdev;
	enum ax_state state;
	char firmware[24];
};

static DEFINE_MUTEX(ax_lock);
static struct ax_card ax_cards[AX_MAX_CARDS];
static int ax_count;
static struct task_struct *ax_heartbeat;
static int ax_users;

static unsigned int ax_bus(const struct ax_card *card)
{
	return card->pdev->bus->number;
}

/* One line for each card: address, alive or dead, version of the firmware that it was given. */
static int ax_cards_get(char *text, const struct kernel_param *kp)
{
	int i, length = 0;

	mutex_lock(&ax_lock);
	for (i = 0; i < ax_count; i++) {
		if (device_is_registered(&ax_cards[i].pdev->dev))
			length += scnprintf(text + length, PAGE_SIZE - length, "%s %s %s\n", pci_name(ax_cards[i].pdev),
					    ax_cards[i].state == AX_ALIVE ? "alive" : "dead", ax_cards[i].firmware);
	}
	mutex_unlock(&ax_lock);
	return length;
}

static const struct kernel_param_ops ax_cards_ops = { .get = ax_cards_get };
module_param_cb(cards, &ax_cards_ops, NULL, 0444);
MODULE_PARM_DESC(cards, "the cards, a line each: address, alive or dead, firmware");

static void ax_setting(const char *name, const char *value)
{
	int ret = 0;

	if (!strcmp(name, "behaviour"))
		strscpy(behaviour, value, sizeof(behaviour));
	else if (!strcmp(name, "load_ms"))
		ret = kstrtouint(value, 0, &load_ms);
	else if (!strcmp(name, "handshake_ms"))
		ret = kstrtouint(value, 0, &handshake_ms);
	if (ret)
		pr_warn("axcl-standin: %s=%s is no number\n", name, value);
}

static void ax_read_settings(const char *path)
{
	void *data = NULL;
	char *text, *rest, *line;
	ssize_t length = kernel_read_file_from_path(path, 0, &data, 65536, NULL, READING_UNKNOWN);

	if (length <= 0)
		return;
	text = kmemdup_nul(data, length, GFP_KERNEL);
	vfree(data);
	if (!text)
		return;
	rest = text;
	while ((line = strsep(&rest, "\n"))) {
		char *value = strchr(line, '=');

		if (!value || *line == '#')
			continue;
		*value++ = '\0';
		ax_setting(strim(line), strim(value));
	}
	kfree(text);
}

/* False if whoever loads the module is being killed. */
static bool ax_wait(unsigned int ms)
{
	return !schedule_timeout_killable(msecs_to_jiffies(ms)) && !fatal_signal_pending(current);
}

static int ax_push_firmware(struct ax_card *card)
{
	const struct firmware *pac;
	char *version;
	int ret;

	printk("############### Dev %x Firmware loading ##############\n", ax_bus(card));
	ret = request_firmware(&pac, AX_FIRMWARE, &card->pdev->dev);
	if (ret) {
		printk("Patch file not found " AX_FIRMWARE ".\n");
		return ret;
	}
	version = strnstr(pac->data, "szProdVer: ", pac->size);
	if (version)
		sscanf(version, "szProdVer: %23s", card->firmware);
	release_firmware(pac);
	printk("=====================PAC Header=====================\n");
	printk("szProdName: AX650\n");
	printk("szProdVer: %s\n", card->firmware);
	return ax_wait(load_ms / 2) ? 0 : -EINTR;
}

static int ax_start(struct pci_dev *pdev, void *data)
{
	struct ax_card *card = &ax_cards[ax_count];
	int ret;

	if (ax_count == AX_MAX_CARDS)
		return 0;
	memset(card, 0, sizeof(*card));
	strscpy(card->firmware, "--", sizeof(card->firmware));
	card->pdev = pci_dev_get(pdev);
	ax_count++;
	ret = ax_push_firmware(card);
	if (ret == -EINTR)
		return ret;
	if (ret) {
		printk("[STATUS]: FAILED[%d]\n", ret);
		printk("Device %x firmware load failed.\n", ax_bus(card));
		card->state = AX_DEAD;
		return 0;
	}
	printk("[STATUS]: SUCCESS\n");
	printk("[axcl_pcie_host_init, %d]: axcl wait dev %x handshake...\n", __LINE__, ax_bus(card));
	if (!strcmp(behaviour, "dead-card") || ax_is_marked_dead(pdev)) {
		if (!ax_wait(handshake_ms))
			return -EINTR;
		printk("[step0]: Handshake timeout!\n");
		if (!ax_wait(handshake_ms))
			return -EINTR;
		printk("[step1]: Handshake timeout!\n");
		printk("axcl pcie check remote device %x failed\n", ax_bus(card));
		card->state = AX_DEAD;
		return 0;
	}
	if (!ax_wait(load_ms - load_ms / 2))
		return -EINTR;
	printk("base_addr: 0x%llx, size: 0x%x\n", (u64)pci_resource_start(pdev, 0), 4 << 20);
	return 0;
}

static int ax_beat(void *unused)
{
	int i;

	while (!kthread_should_stop()) {
		mutex_lock(&ax_lock);
		for (i = 0; i < ax_count; i++) {
			if (ax_cards[i].state != AX_ALIVE)
				printk("[heartbeat_recv_thread, %d]: device %x: dead!\n", __LINE__, ax_bus(&ax_cards[i]));
		}
		mutex_unlock(&ax_lock);
		schedule_timeout_interruptible(AX_HEARTBEAT_S * HZ);
	}
	return 0;
}

static int ax_reboot(struct ax_card *card)
{
	if (card->state == AX_DEAD)
		return -EPERM;
	printk("start reset slave\n");
	if (!ax_wait(load_ms))
		return -EINTR;
	card->state = AX_ALIVE;
	printk("device %x: alive!\n", ax_bus(card));
	return 0;
}

static int ax_command(char *text)
{
	char verb[8] = "", bdf[16] = "", cure[8] = "reboot";
	int i;

	if (sscanf(text, "%7s %15s %7s", verb, bdf, cure) < 2)
		return -EINVAL;
	for (i = 0; i < ax_count; i++) {
		struct ax_card *card = &ax_cards[i];

		if (strcmp(pci_name(card->pdev), bdf))
			continue;
		if (!strcmp(verb, "reboot"))
			return ax_reboot(card);
		if (strcmp(verb, "dead"))
			return -EINVAL;
		card->state = !strcmp(cure, "reboot") ? AX_DEAD_UNTIL_REBOOT :
			      !strcmp(cure, "release") ? AX_DEAD_UNTIL_RELEASE : AX_DEAD;
		if (!strcmp(cure, "rescan"))
			ax_mark_dead(card->pdev);
		wake_up_process(ax_heartbeat);
		return 0;
	}
	return -ENODEV;
}

static ssize_t ax_write(struct file *file, const char __user *user, size_t length, loff_t *at)
{
	char text[64];
	int ret;

	if (length >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, user, length))
		return -EFAULT;
	text[length] = '\0';
	mutex_lock(&ax_lock);
	ret = ax_command(text);
	mutex_unlock(&ax_lock);
	return ret ? ret : length;
}

static int ax_open(struct inode *inode, struct file *file)
{
	mutex_lock(&ax_lock);
	ax_users++;
	mutex_unlock(&ax_lock);
	return nonseekable_open(inode, file);
}

static int ax_release(struct inode *inode, struct file *file)
{
	int i;

	mutex_lock(&ax_lock);
	ax_users--;
	for (i = 0; i < ax_count && !ax_users; i++) {
		if (ax_cards[i].state != AX_DEAD_UNTIL_RELEASE)
			continue;
		ax_cards[i].state = AX_ALIVE;
		printk("device %x: alive!\n", ax_bus(&ax_cards[i]));
	}
	mutex_unlock(&ax_lock);
	return 0;
}

static const struct file_operations ax_fops = {
	.owner = THIS_MODULE,
	.open = ax_open,
	.release = ax_release,
	.write = ax_write,
};

static struct miscdevice ax_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "axcl_host",
	.fops = &ax_fops,
};

static void ax_put_cards(void)
{
	while (ax_count)
		pci_dev_put(ax_cards[--ax_count].pdev);
}

static int __init ax_init(void)
{
	bool is_set = *behaviour;
	char chosen[sizeof(behaviour)];
	unsigned int load = load_ms, handshake = handshake_ms;
	int ret;

#ifdef STANDIN_FAILS_TO_BUILD
	axcl_symbol_that_this_kernel_lacks();
#endif
	strscpy(chosen, behaviour, sizeof(chosen));
	load_ms = 1000;
	handshake_ms = 500;
	ax_read_settings("/usr/share/axcl-standin/defaults.conf");
	ax_read_settings("/etc/axcl-standin.conf");
	if (is_set)
		strscpy(behaviour, chosen, sizeof(behaviour));
	load_ms = load ? load : load_ms;
	handshake_ms = handshake ? handshake : handshake_ms;

	if (!strcmp(behaviour, "fails-to-load")) {
		pr_err("axcl_host: stand-in was told to fail\n");
		return -EIO;
	}
	while (!strcmp(behaviour, "hangs")) {
		if (!ax_wait(1000))
			return -EINTR;
	}
	ax_msg_users();
	ret = ax_for_each_card(ax_start, NULL);
	if (ret)
		goto cards;
	ax_heartbeat = kthread_run(ax_beat, NULL, "heartbeat_kthd");
	if (IS_ERR(ax_heartbeat)) {
		ret = PTR_ERR(ax_heartbeat);
		goto cards;
	}
	ret = misc_register(&ax_device);
	if (!ret)
		return 0;
	kthread_stop(ax_heartbeat);
cards:
	ax_put_cards();
	return ret;
}
module_init(ax_init);

static void __exit ax_exit(void)
{
	misc_deregister(&ax_device);
	kthread_stop(ax_heartbeat);
	if (ax_count)
		printk("start reset slave\n");
	ax_put_cards();
}
module_exit(ax_exit);

MODULE_LICENSE("GPL");
MODULE_FIRMWARE(AX_FIRMWARE);
MODULE_DESCRIPTION("Stand-in for axcl_host of Axera's PCIe cards");
