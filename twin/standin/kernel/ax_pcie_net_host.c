// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: (c) 2026, The edgenpu.tuning authors
 *
 * Stand-in for the vendor's ax_pcie_net_host, which is built and never loaded: with one MSI vector it cannot work.
 */
#include "ax_cards.h"

AX_TELL_VERSION;

static int ax_refuse(struct pci_dev *pdev, void *data)
{
	pci_info(pdev, "only alloc 1 MSI interrupt, cannot support pci-net\n");
	return -ENODEV;
}

static int __init ax_init(void)
{
	ax_for_each_card(ax_refuse, NULL);
	return -ENODEV;
}
module_init(ax_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Stand-in for ax_pcie_net_host of Axera's PCIe cards");
