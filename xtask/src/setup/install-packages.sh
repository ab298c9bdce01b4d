#!/bin/sh
# Installs Debian packages without starting the daemons among them:
#   install-packages.sh PACKAGE...
# A package starts its daemon when it is installed, unless /usr/sbin/policy-rc.d
# says no; so such a file stands there for the time of the installation. Units
# that appear during it are disabled, so that the next boot does not start them
# either. Daemons that were here before are left alone.
set -eu

policy=/usr/sbin/policy-rc.d
aside=$policy.before-vipd-setup
mark='# put here by vipd setup for the time of an installation'
units=/lib/systemd/system

restore() {
    if grep -qsF "$mark" "$policy"; then rm -f "$policy"; fi
    if [ -e "$aside" ]; then mv "$aside" "$policy"; fi
}

restore # what a run that was killed may have left
trap restore EXIT
trap 'exit 130' INT TERM HUP

if [ -e "$policy" ]; then mv "$policy" "$aside"; fi
printf '#!/bin/sh\n%s\nexit 101\n' "$mark" > "$policy"
chmod 755 "$policy"

before=$(ls "$units" 2> /dev/null || true)

export DEBIAN_FRONTEND=noninteractive
# A third-party source that cannot be reached must not stop the installation.
apt-get update -q || echo 'apt-get update failed; going on with the package lists that are here' >&2
# --no-remove: better no installation than one that takes something away.
apt-get install -q -y --no-remove --no-install-recommends "$@"

if command -v systemctl > /dev/null; then
    for unit in $(ls "$units" 2> /dev/null || true); do
        case $unit in
            *@.service) continue ;;
            *.service) ;;
            *) continue ;;
        esac
        if printf '%s\n' "$before" | grep -qxF "$unit"; then continue; fi
        if [ "$(systemctl is-enabled "$unit" 2> /dev/null || true)" = enabled ]; then
            echo "disabling $unit: tests start daemons of their own"
            systemctl disable -q "$unit" || true
        fi
    done
fi
