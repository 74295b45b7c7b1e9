// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: (c) 2026, The edgenpu.tuning authors
 *
 * CPU clocks that take any rate and remember it: what cpufreq-dt needs to set a frequency and to read it back.
 * The real board's firmware offers such clocks over SCMI.
 */
#include <linux/clk-provider.h>
#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/platform_device.h>

#define BOOT_RATE_HZ	816000000UL

struct twin_clk {
	struct clk_hw hw;
	unsigned long rate_hz;
};

static struct twin_clk *to_twin_clk(struct clk_hw *hw)
{
	return container_of(hw, struct twin_clk, hw);
}

static unsigned long twin_clk_recalc_rate(struct clk_hw *hw, unsigned long parent_rate)
{
	return to_twin_clk(hw)->rate_hz;
}

static long twin_clk_round_rate(struct clk_hw *hw, unsigned long rate, unsigned long *parent_rate)
{
	return rate;
}

static int twin_clk_set_rate(struct clk_hw *hw, unsigned long rate, unsigned long parent_rate)
{
	to_twin_clk(hw)->rate_hz = rate;
	return 0;
}

static const struct clk_ops twin_clk_ops = {
	.recalc_rate = twin_clk_recalc_rate,
	.round_rate = twin_clk_round_rate,
	.set_rate = twin_clk_set_rate,
};

static int twin_cpuclk_probe(struct platform_device *pdev)
{
	struct device *dev = &pdev->dev;
	struct clk_hw_onecell_data *clocks;
	int count, i, ret;

	count = of_property_count_strings(dev->of_node, "clock-output-names");
	if (count < 1)
		return dev_err_probe(dev, -EINVAL, "clock-output-names names no clock\n");
	clocks = devm_kzalloc(dev, struct_size(clocks, hws, count), GFP_KERNEL);
	if (!clocks)
		return -ENOMEM;
	clocks->num = count;
	for (i = 0; i < count; i++) {
		struct twin_clk *clk = devm_kzalloc(dev, sizeof(*clk), GFP_KERNEL);
		struct clk_init_data init = { .ops = &twin_clk_ops, .flags = CLK_GET_RATE_NOCACHE };

		if (!clk)
			return -ENOMEM;
		ret = of_property_read_string_index(dev->of_node, "clock-output-names", i, &init.name);
		if (ret)
			return ret;
		clk->rate_hz = BOOT_RATE_HZ;
		clk->hw.init = &init;
		ret = devm_clk_hw_register(dev, &clk->hw);
		if (ret)
			return ret;
		clocks->hws[i] = &clk->hw;
	}
	return devm_of_clk_add_hw_provider(dev, of_clk_hw_onecell_get, clocks);
}

static const struct of_device_id twin_cpuclk_of_match[] = {
	{ .compatible = "edgenpu,twin-cpu-clock" },
	{ }
};
MODULE_DEVICE_TABLE(of, twin_cpuclk_of_match);

static struct platform_driver twin_cpuclk_driver = {
	.probe = twin_cpuclk_probe,
	.driver = {
		.name = "twin-cpuclk",
		.of_match_table = twin_cpuclk_of_match,
		.suppress_bind_attrs = true,
	},
};
builtin_platform_driver(twin_cpuclk_driver);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("CPU clocks that remember the rate they were given");
