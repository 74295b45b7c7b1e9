// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: (c) 2026, The edgenpu.tuning authors
 *
 * Second half of the stand-in's ax_pcie_host_dev: what the other modules need of it.
 */
#include "ax_cards.h"

AX_TELL_VERSION;

#define AX_MARK ((__force pci_dev_flags_t)(1 << 15))

int ax_for_each_card(int (*fn)(struct pci_dev *pdev, void *data), void *data)
{
	struct pci_dev *pdev = NULL;
	int ret = 0;

	while (!ret && (pdev = pci_get_subsys(0x1f4b, 0x0650, 0x1f4b, 0x0650, pdev))) {
		if (pdev->driver && !strcmp(pdev->driver->name, "ax_pcie_dev_host"))
			ret = fn(pdev, data);
	}
	/* Ended early, the loop has left its reference. */
	if (ret)
		pci_dev_put(pdev);
	return ret;
}
EXPORT_SYMBOL_GPL(ax_for_each_card);

void ax_mark_dead(struct pci_dev *pdev)
{
	pdev->dev_flags |= AX_MARK;
}
EXPORT_SYMBOL_GPL(ax_mark_dead);

bool ax_is_marked_dead(struct pci_dev *pdev)
{
	return pdev->dev_flags & AX_MARK;
}
EXPORT_SYMBOL_GPL(ax_is_marked_dead);
