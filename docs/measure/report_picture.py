"""Take the picture of the report for docs/report.md: the top of a report in Chromium, driven by selenium.

    glas3d demo && python docs/measure/report_picture.py glas3d-demo/report.html docs/report.png

Chromium and its driver come from the system (Debian: chromium, chromium-driver).
"""

import sys
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

WIDTH, HEIGHT = 1200, 1900

report, picture = map(Path, sys.argv[1:])
options = webdriver.ChromeOptions()
options.binary_location = "/usr/bin/chromium"
drawn_by_the_processor = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", *drawn_by_the_processor):
    options.add_argument(argument)
driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
try:
    size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(report.resolve().as_uri())
    while driver.execute_script("return document.getElementById('viewer').dataset.state") == "loading":
        time.sleep(0.2)
    time.sleep(2)
    driver.save_screenshot(str(picture))
finally:
    driver.quit()
