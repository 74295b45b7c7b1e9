// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: (c) 2026, The edgenpu.tuning authors
 *
 * Stand-in for the vendor's ax_pcie_msg: a device node, and what axcl_host needs.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>

#include "ax_cards.h"

AX_TELL_VERSION;

static const struct file_operations ax_fops = {
	.owner = THIS_MODULE,
	.open = nonseekable_open,
};

static struct miscdevice ax_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "msg_userdev",
	.fops = &ax_fops,
};

static int ax_count(struct pci_dev *pdev, void *data)
{
	++*(int *)data;
	return 0;
}

int ax_msg_users(void)
{
	return module_refcount(THIS_MODULE);
}
EXPORT_SYMBOL_GPL(ax_msg_users);

static int __init ax_init(void)
{
	int cards = 0;

	ax_for_each_card(ax_count, &cards);
	printk("ax pcie msg init\n");
	return misc_register(&ax_device);
}
module_init(ax_init);

static void __exit ax_exit(void)
{
	misc_deregister(&ax_device);
}
module_exit(ax_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Stand-in for ax_pcie_msg of Axera's PCIe cards");
