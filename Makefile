# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Everything here can be had without make: `python3 -m tools --help`, `python3 -m twin --help`.
PYTHON ?= python3
RUN := .venv/run/bin
TOOLS := $(PYTHON) -m tools

.DEFAULT_GOAL := help
.PHONY: help site test test-all lint sanity unit report molecule bench format twin-up twin-ssh twin-down clean machine browser venv

help: ## this list
	@echo 'make site: the whole thing on a digital twin of a CM3588 NAS. make test: is all well?'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

site: twin-up ## boot the twin, then playbooks/site.yml on it
	$(RUN)/ansible-playbook playbooks/site.yml

test: browser ## what every change must pass: lint, sanity, unit, report, molecule (scenario default)
	@$(TOOLS) gate twin sanity lint unit report molecule

test-all: browser ## the above with every scenario, every Python and every ansible-core at hand (long)
	@$(TOOLS) gate twin sanity lint unit report matrix scenarios

lint: ## reads the code: ansible-lint, Galaxy's importer, mypy, ruff, documentation, changelog
	@$(TOOLS) gate lint

sanity: ## ansible-test sanity, no exceptions
	@$(TOOLS) gate sanity

unit: ## unit tests, in seconds
	@$(TOOLS) gate unit

report: browser ## pages of reports in headless Chromium; EDGENPU_SCREENSHOTS=DIR keeps the pictures
	@$(TOOLS) gate report

molecule: machine ## molecule/default on the twin
	@$(TOOLS) gate twin molecule

bench: machine venv ## what the tuning costs, on a twin of its own; into bench/README.md
	@$(RUN)/python -m bench

format: ## put layout and order of imports right in all Python
	@$(TOOLS) venv check
	.venv/check/bin/ruff check --quiet --select I --fix .
	.venv/check/bin/ruff format .

twin-up: machine venv ## boot the twin (the first time it is built: minutes)
	$(RUN)/python -m twin up

twin-ssh: venv ## a shell on the twin
	$(RUN)/python -m twin ssh

twin-down: venv ## stop all twins of this checkout
	$(RUN)/python -m twin down --all

clean: ## stop the twins and remove what was made in the checkout; reports/ and ~/.cache/edgenpu-tuning stay
	if [ -x $(RUN)/python ]; then $(RUN)/python -m twin down --all; fi
	rm -rf .ansible .cache .venv edgenpu-tuning-*.tar.gz

machine:
	@$(TOOLS) install

browser:
	@$(TOOLS) install --browser

venv:
	@$(TOOLS) venv run
